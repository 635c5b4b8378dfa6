"""The writer of block events, which both workers share."""

import pytest

from anyclaude.messages.accumulator import MessageAccumulator
from anyclaude.messages.blocks import BlockWriter
from anyclaude.messages.events import EventMachine
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say


@pytest.fixture
def writer() -> BlockWriter:
    return BlockWriter()


def content(writer: BlockWriter) -> list[dict[str, object]]:
    """The blocks that a client gets from the writer's events, read by the grammar."""
    machine, message = EventMachine("msg_1", "m"), MessageAccumulator()
    for event in [say.started(), *writer.drain(), say.finished()]:
        for sent in machine.feed(event):
            message.add(sent)
    blocks: list[dict[str, object]] = message.message()["content"]
    return blocks


def test_blocks_follow_their_content(writer: BlockWriter) -> None:
    """A block ends where the kind of content changes, and pieces of one kind join."""
    writer.thinking("hm")
    writer.sign("sig")
    writer.text("a")
    writer.text("b")
    writer.tool_use("toolu_1", "Bash", '{"command": "ls"}')
    writer.close()
    assert content(writer) == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "text", "text": "ab"},
        {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}},
    ]
    assert writer.has_tool_use


def test_a_block_of_whitespace_is_not_written(writer: BlockWriter) -> None:
    """Whitespace alone makes no block, and none of it is lost when other characters follow."""
    writer.text("\n\n")
    writer.begin_tool_use("toolu_1", "Bash")
    writer.input_json("{}")
    writer.text("\n")
    writer.text(" done \n")
    writer.close()
    tool, text = content(writer)
    assert (tool["type"], text) == ("tool_use", {"type": "text", "text": "\n done \n"})


def test_thinking_is_always_signed(writer: BlockWriter) -> None:
    """A thinking block that nobody signed gets a marker, since clients expect a signature."""
    writer.thinking("hm")
    writer.close()
    (block,) = content(writer)
    assert str(block["signature"]).startswith("anyclaude-")


def test_long_inputs_travel_in_pieces(writer: BlockWriter) -> None:
    """No event carries more than a few thousand characters of a call's input."""
    writer.tool_use("toolu_1", "Write", '{"text": "%s"}' % ("x" * 20_000))
    pieces = [event.block_delta.partial_json for event in writer._events]
    assert max(map(len, pieces)) <= 4096
    (block,) = content(writer)
    assert block["input"] == {"text": "x" * 20_000}


def test_an_abandoned_call_has_no_end(writer: BlockWriter) -> None:
    """A call that was cut stays open, so that no client runs half of it."""
    writer.begin_tool_use("toolu_1", "Bash")
    writer.input_json('{"comm')
    writer.abandon()
    writer.close()
    assert not any(event.HasField("block_stop") for event in writer.drain())


def test_events_are_drained_once(writer: BlockWriter) -> None:
    """Each event leaves once, those outside blocks in their order among the others."""
    started = worker.GenerateResponse(started=worker.Started())
    writer.add(started)
    assert writer.drain() == [started]
    assert writer.drain() == []
