"""What Claude Code needs of a server, tested with real ones."""

import os
import time

import anthropic
import pytest

from anyclaude.worker.v1 import worker_pb2 as pb
from tests.e2e.claude_code import ClaudeCode, ClaudeCodeMissing, find_binary
from tests.e2e.namespace import Namespace
from tests.upstreams.conftest import DIALECTS, FOUND, KINDS, MODES, WINDOW_TOKENS

# With all that the model gives: llama.cpp lets it write nothing else.
TOOL = {
    "name": "Bash",
    "description": "Runs a command.",
    "input_schema": {
        "type": "object",
        "properties": {"command": {"type": "string"}, "description": {"type": "string"}},
        "required": ["command"],
    },
}
BOTH = [f"{server}-{dialect}" for server in KINDS for dialect in DIALECTS]
modes = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
servers_and_dialects = pytest.mark.parametrize("mode", BOTH)


def user(content):
    return {"role": "user", "content": content}


def prompt_tokens(usage):
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


@pytest.mark.parametrize("server", KINDS)
def test_dialect(asking, server, record_property):
    """The dialect is found by a probe, and shown in status."""
    asked = asking(server)
    asked.ask(user("Hello."))
    status = asked.status()
    record_property("found", pb.Dialect.Name(status.dialect).removeprefix("DIALECT_").lower())
    assert status.dialect == FOUND[server]
    assert status.reachability == pb.REACHABILITY_REACHABLE
    assert status.is_loopback


@modes
def test_words(asking, mode):
    """The model's text and the server's counts reach the client."""
    message = asking(mode.name).ask(user("Who are you?"), way=mode.way)
    assert message.content[0].text.startswith("I am anyclaude's embedded demo model")
    assert message.stop_reason == "end_turn"
    assert prompt_tokens(message.usage) > 5
    assert message.usage.output_tokens > 10


@modes
def test_tool_loop(asking, mode):
    """A tool is called, and its result leads to an answer."""
    asked = asking(mode.name)
    turns = [user("Run something.")]
    call = asked.ask(*turns, tools=[TOOL], way=mode.way)
    assert call.stop_reason == "tool_use"
    tool_use = call.content[-1]
    assert (tool_use.type, tool_use.name) == ("tool_use", "Bash")
    assert tool_use.input["command"] == "echo hello from anyclaude"
    result = {"type": "tool_result", "tool_use_id": tool_use.id, "content": "hello from anyclaude"}
    turns += [{"role": "assistant", "content": call.model_dump()["content"]}, user([result])]
    answer = asked.ask(*turns, tools=[TOOL], way=mode.way)
    assert answer.stop_reason == "end_turn"
    assert answer.content[0].text.startswith("The tool call came back")


@modes
def test_length(asking, mode):
    """An answer ends at max_tokens, and its stop reason is max_tokens."""
    message = asking(mode.name).ask(user("Who are you?"), max_tokens=3, way=mode.way)
    assert message.stop_reason == "max_tokens"


@modes
def test_large_answers(asking, mode):
    """A max_tokens beyond the server's limit is accepted: Claude Code requests 64,000."""
    message = asking(mode.name).ask(user("Who are you?"), max_tokens=64_000, way=mode.way)
    assert message.stop_reason == "end_turn"


@modes
def test_conversation(asking, mode):
    """A system message in the middle, earlier calls and their results are accepted."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "none", "is_error": True}
    message = asking(mode.name).ask(
        user("List it."),
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, call]},
        user([result, {"type": "text", "text": "And now?"}]),
        system=[{"type": "text", "text": "Be short."}],
        tools=[TOOL],
        way=mode.way,
    )
    assert message.stop_reason in ("end_turn", "tool_use")


@servers_and_dialects
def test_count(asking, mode, record_property):
    """count_tokens is close to the usage of the answer."""
    asked = asking(f"{mode}-stream")
    question = user("Count these words, please. " * 60)
    truth = prompt_tokens(asked.ask(question, tools=[TOOL]).usage)
    counted = asked.client.messages.count_tokens(model="m", messages=[question], tools=[TOOL])
    record_property("counted", counted.input_tokens)
    record_property("was", truth)
    assert counted.input_tokens == pytest.approx(truth, rel=0.2)


@servers_and_dialects
def test_reuse(asking, mode, record_property):
    """Tokens that the server reused are reported as such, if it reports them."""
    asked = asking(f"{mode}-stream")
    question = user("The same words twice, and more than a few of them. " * 40)
    asked.ask(question)
    usage = asked.ask(question).usage
    record_property("of the second prompt", prompt_tokens(usage))
    record_property("read", usage.cache_read_input_tokens)
    assert usage.cache_read_input_tokens <= prompt_tokens(usage)


@modes
def test_overflow(asking, mode, record_property):
    """A prompt longer than the window is refused with the API's own sentence."""
    asked = asking(mode.name)
    asked.ask(user("Far too many words. " * 100), way=mode.way)
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long") as error:
        asked.ask(user("Far too many words. " * 20_000), way=mode.way)
    words = error.value.body["error"]["message"]
    record_property("said", repr(words))
    assert f"> {WINDOW_TOKENS} maximum" in words
    assert asked.status().breaker == pb.BREAKER_STATE_CLOSED


@servers_and_dialects
def test_cancel(asking, servers, mode, record_property):
    """A client that leaves during an answer stops the server's computation."""
    server, _, _ = mode.rpartition("-")
    computing = servers[f"{server}-endless"]
    asked = asking(f"{mode}-endless")
    request = {"model": "m", "max_tokens": 30_000, "messages": [user("Talk on.")]}
    with asked.client.messages.stream(**request) as running:
        next(event for event in running if event.type == "content_block_delta")
        assert computing.running() == 1
        left = time.monotonic()
    while computing.running():
        assert time.monotonic() - left < 2, "it goes on for nobody"
    record_property("ended after seconds", round(time.monotonic() - left, 2))
    assert asked.status().running_requests == 0


@pytest.mark.parametrize("server", KINDS)
def test_unknown_field(asking, server):
    """Fields of Claude Code beyond the core of the API are accepted."""
    message = asking(server).ask(
        user("Hello."),
        system=[{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}],
        metadata={"user_id": "user_1"},
        thinking={"type": "enabled", "budget_tokens": 1024},
        max_tokens=2000,
        extra_body={"context_management": {"edits": []}},
    )
    assert message.stop_reason == "end_turn"


@pytest.mark.parametrize("server", KINDS)
def test_claude_code(frontend, server, tmp_path, record_property):
    """The real Claude Code completes a tool loop."""
    try:
        binary = find_binary()
    except ClaudeCodeMissing as missing:
        pytest.skip(str(missing))
    home, project = tmp_path / "home", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    # Not in a namespace: the servers are outside.
    here = Namespace(holder_pid=os.getpid(), prefix=())
    claude = ClaudeCode(
        binary,
        here,
        frontend.base_url,
        home,
        context_tokens=WINDOW_TOKENS,
        environment={"ANTHROPIC_CUSTOM_HEADERS": f"x-anyclaude-mode: {server}"},
    )
    ended = claude.ask("Please say hello with Bash.", project, allowed_tools=["Bash"])
    assert ended.succeeded, ended
    assert [use.name for use in ended.tool_uses] == ["Bash"]
    assert [result.text for result in ended.tool_results] == ["hello from anyclaude"]
    assert ended.texts[-1].startswith("The tool call came back")
    record_property("prompt of tokens", ended.usages[-1].prompt_tokens)
