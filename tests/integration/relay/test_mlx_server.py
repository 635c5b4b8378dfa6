"""The relay with a real OpenAI server: mlx_lm.server with the demo model."""

from collections.abc import Iterator

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.mlx.demo import MODEL_PATH
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.integration.mlx_server import MlxServer
from tests.integration.relay_process import RelayProcess

BASH = {
    "name": "Bash",
    "description": "Runs a command.",
    "input_schema": {
        "type": "object",
        "properties": {"command": {"type": "string"}, "description": {"type": "string"}},
        "required": ["command"],
    },
}


def ask(*messages, **fields):
    turns = list(messages) or [{"role": "user", "content": "Say hello."}]
    return {"model": "claude-sonnet-4-5", "max_tokens": 200, "messages": turns, **fields}


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    with MlxServer(MODEL_PATH) as server:
        url = {"base_url": server.base_url}
        upstreams = {
            "mlx-lm": url,
            # It lists what the hub cache holds, not what it has loaded.
            "found": {"kind": "other", "model": "default_model", **url},
            "whole": {"kind": "mlx-lm", "stream": False, **url},
            "narrow": {"kind": "mlx-lm", "context_window_tokens": 1000, **url},
        }
        with RelayProcess(upstreams) as process:
            yield process


@pytest.mark.parametrize("mode", ["mlx-lm", "whole"])
def test_words(relay, mode):
    """Text and the server's counts arrive, streaming or not."""
    message = relay.message(mode, ask())
    assert message["content"][0]["text"].startswith("I am anyclaude's embedded demo model")
    assert message["stop_reason"] == "end_turn"
    assert message["usage"]["input_tokens"] > 0
    assert message["usage"]["output_tokens"] > 10


@pytest.mark.parametrize("mode", ["mlx-lm", "whole"])
def test_a_tool_loop(relay, mode):
    """The model's call becomes a tool_use block, and its result ends the loop."""
    first = {"role": "user", "content": "Run something."}
    call = relay.message(mode, ask(first, tools=[BASH]))
    assert call["stop_reason"] == "tool_use"
    tool_use = call["content"][-1]
    assert tool_use["name"] == "Bash"
    assert tool_use["input"]["command"] == "echo hello from anyclaude"
    result = {"type": "tool_result", "tool_use_id": tool_use["id"], "content": "hello"}
    turns = (
        first,
        {"role": "assistant", "content": call["content"]},
        {"role": "user", "content": [result]},
    )
    answer = relay.message(mode, ask(*turns, tools=[BASH]))
    assert answer["stop_reason"] == "end_turn"
    assert answer["content"][0]["text"].startswith("The tool call came back")


def test_reuse_by_the_server_is_reported(relay):
    """Tokens that the server reused are reported as read from the cache."""
    question = ask({"role": "user", "content": "The same words twice."})
    relay.message("mlx-lm", question)
    assert relay.message("mlx-lm", question)["usage"]["cache_read_input_tokens"] > 0


def test_the_answer_is_cut_at_max_tokens(relay):
    """A length stop is reported as max_tokens."""
    assert relay.message("mlx-lm", ask(max_tokens=3))["stop_reason"] == "max_tokens"


def test_a_warm_up_makes_no_words(relay):
    """max_tokens 0 fills the server's cache and returns no content."""
    message = relay.message("mlx-lm", ask(max_tokens=0))
    assert (message["content"], message["stop_reason"]) == ([], "max_tokens")
    assert message["usage"]["output_tokens"] == 0


def test_the_dialect_is_found_and_shown(relay):
    """Without a setting the dialect is found by a probe, and status shows it."""
    assert relay.message("found", ask())["stop_reason"] == "end_turn"
    status = relay.status("found")
    assert status.dialect == pb.DIALECT_OPENAI
    assert status.reachability == pb.REACHABILITY_REACHABLE
    assert status.breaker == pb.BREAKER_STATE_CLOSED
    assert status.is_loopback


def test_counts_are_estimates_and_say_so(relay):
    """Estimates are marked, and close once one prompt was counted."""
    question = ask({"role": "user", "content": "Count these words, please. " * 60})
    usage = relay.message("mlx-lm", question)["usage"]
    truth = usage["input_tokens"] + usage["cache_read_input_tokens"]
    counted = relay.count("mlx-lm", question)
    assert counted.is_estimate
    assert counted.input_tokens == pytest.approx(truth, rel=0.2)


def test_a_cancelled_call_leaves_the_server_free(relay):
    """After a cancelled response the next one starts at once."""
    call = relay.call("mlx-lm", ask())
    assert next(call).HasField("started")
    call.cancel()
    assert relay.message("mlx-lm", ask())["stop_reason"] == "end_turn"
    assert relay.status("mlx-lm").running_requests == 0


def test_a_prompt_too_long_is_refused_here(relay):
    """The relay refuses a prompt that the server would accept at any length."""
    assert relay.message("narrow", ask())["stop_reason"] == "end_turn"
    question = ask({"role": "user", "content": "Far too many words. " * 1000})
    with pytest.raises(ApiError, match=r"prompt is too long: \d+ tokens > 1000 maximum") as error:
        relay.message("narrow", question)
    assert (error.value.status, error.value.type) == (400, "invalid_request_error")
    assert relay.status("narrow").breaker == pb.BREAKER_STATE_CLOSED
    # Nothing is refused where no window is set.
    assert relay.message("mlx-lm", question)["usage"]["input_tokens"] > 1000
