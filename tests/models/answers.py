"""Runs an answer's tokens through a `BlockStream` and reads the events as a strict client would."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.decode import BlockStream
from anyclaude.mlx.decode.constraint import AnswerGrammar
from anyclaude.worker.v1.worker_pb2 import BlockDelta, BlockStart, GenerateResponse
from tests.models.families import encode

BASH = Tool(
    name="Bash",
    input_schema={
        "type": "object",
        "properties": {
            "command": {"type": "string"},
            "timeout": {"type": "integer"},
            "quiet": {"type": "boolean"},
            "ratio": {"type": "number"},
            "paths": {"type": "array", "items": {"type": "string"}},
            "env": {"type": "object"},
            "note": {"type": ["string", "null"]},
            "target": {"anyOf": [{"type": "integer"}, {"type": "array"}]},
            "free": {},
        },
        "required": ["command"],
    },
)
STATUS = Tool(name="Status", input_schema={"type": "object", "properties": {}})
TOOLS = (BASH, STATUS)


@dataclass(frozen=True)
class Block:
    kind: str
    text: str = ""
    name: str = ""
    id: str = ""

    @property
    def input(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.text)
        return value


@dataclass
class Answer:
    stream: BlockStream
    blocks: list[Block] = field(default_factory=list)

    def kinds(self) -> list[str]:
        return [block.kind for block in self.blocks]

    def of(self, kind: str) -> list[Block]:
        return [block for block in self.blocks if block.kind == kind]

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.of("text"))

    @property
    def inputs(self) -> list[dict[str, Any]]:
        return [block.input for block in self.of("tool_use")]

    def brief(self) -> list[tuple[str, str, str]]:
        """All of it that does not depend on chance."""
        return [(block.kind, block.name, block.text) for block in self.blocks]


def answer(
    wrapper: TokenizerWrapper,
    text: str | Sequence[int],
    *,
    tools: Sequence[Tool] = TOOLS,
    stop_sequences: Sequence[str] = (),
    tool_choice: ToolChoice = ToolChoice(),  # noqa: B008 - frozen
    in_thinking: bool = False,
    cut: bool = False,
    grammar: AnswerGrammar | None = None,
) -> Answer:
    """The answer whose text or tokens are `text`; stops where an engine would."""
    stream = BlockStream(
        wrapper,
        tools,
        stop_sequences,
        tool_choice=tool_choice,
        in_thinking=in_thinking,
        grammar=grammar,
    )
    tokens = encode(wrapper, text) if isinstance(text, str) else text
    events: list[GenerateResponse] = []
    for token in tokens:
        events += stream.push(token)
        if stream.stop_sequence is not None:
            break
    events += stream.finish(cut=cut)
    return Answer(stream, list(read_blocks(events)))


def read_blocks(events: Iterable[GenerateResponse]) -> Iterable[Block]:
    """The blocks of a stream; an AssertionError where it breaks the grammar of section 'blocks'."""
    index = 0
    start: BlockStart | None = None
    deltas: list[BlockDelta] = []
    for event in events:
        match event.WhichOneof("event"):
            case "block_start":
                assert start is None, "a block inside a block"
                start, deltas = event.block_start, []
                assert start.index == index
            case "block_delta":
                assert start is not None
                assert event.block_delta.index == index
                deltas.append(event.block_delta)
            case "block_stop":
                assert start is not None
                assert event.block_stop.index == index
                yield _block(start, deltas)
                start, index = None, index + 1
            case other:
                raise AssertionError(f"{other} is no block event")
    assert start is None, "a block left open"


def _block(start: BlockStart, deltas: Sequence[BlockDelta]) -> Block:
    kind = start.WhichOneof("block")
    fields = [delta.WhichOneof("delta") for delta in deltas]
    if kind == "tool_use":
        assert set(fields) == {"partial_json"}
        text = "".join(delta.partial_json for delta in deltas)
        assert isinstance(json.loads(text), dict)
        return Block(kind, text, name=start.tool_use.name, id=start.tool_use.id)
    if kind == "thinking":
        assert fields.pop() == "signature"
        assert deltas[-1].signature
        deltas = deltas[:-1]
    assert kind in ("text", "thinking")
    assert set(fields) == {kind}
    assert all(getattr(delta, kind) for delta in deltas), "an empty delta"
    text = "".join(getattr(delta, kind) for delta in deltas)
    assert text.strip(), "an empty block"
    return Block(kind, text)
