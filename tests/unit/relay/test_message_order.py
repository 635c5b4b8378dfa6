"""The order of messages that servers of chat completions insist on, and where marks go."""

import json

import pytest

from anyclaude.relay.quirks import Quirk, Quirks
from tests.unit.relay.test_openai_request import body, roles

GO = {"role": "user", "content": "go"}
MARK = {"cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}


def text(words, **fields):
    return {"type": "text", "text": words, **fields}


def result(number, content="x", **fields):
    return {"type": "tool_result", "tool_use_id": f"c{number}", "content": content, **fields}


def calls(*numbers):
    blocks = [
        {"type": "tool_use", "id": f"c{number}", "name": "Read", "input": {}} for number in numbers
    ]
    return {"role": "assistant", "content": blocks}


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


NOTE = {"role": "system", "content": "note"}
SHAPES = {
    "words first": [GO, calls(1), user(text("note"), result(1))],
    "words between": [GO, calls(1, 2), user(result(1), text("note"), result(2))],
    "words last": [GO, calls(1, 2), user(result(1), result(2), text("note"))],
    "an image between": [GO, calls(1, 2), user(result(1, [IMAGE]), text("note"), result(2))],
    "two turns": [GO, calls(1, 2), user(result(1), text("note")), user(result(2))],
    "a system message between": [GO, calls(1, 2), user(result(1)), NOTE, user(result(2))],
    "a user between": [GO, calls(1, 2), user(text("note")), user(result(1), result(2))],
    "another order": [GO, calls(1, 2), user(result(2), text("note"), result(1))],
    "two rounds": [
        GO,
        calls(1),
        user(text("note"), result(1)),
        calls(2),
        user(text("b"), result(2)),
    ],
    "a missing result": [GO, calls(1, 2), user(result(1), text("note")), calls(3), user(result(3))],
    "no result at all": [GO, calls(1, 2), user(text("note"))],
    "a result without a call": [GO, user(result(7), text("note"))],
    "a result twice": [GO, calls(1), user(result(1), result(1, "note"))],
    "an assistant between": [
        GO,
        calls(1),
        {"role": "assistant", "content": "note"},
        user(result(1)),
    ],
    "one id in two turns": [GO, calls(1), user(text("note")), calls(1), user(result(1))],
}


@pytest.mark.parametrize("quirk", [None, Quirk.ALTERNATE, Quirk.SYSTEM_AS_USER])
@pytest.mark.parametrize("shape", SHAPES)
def test_results_come_before_words(shape, quirk):
    """Nothing comes between an assistant's calls and their results, and no words are lost."""
    messages = body(*SHAPES[shape], quirks=Quirks(frozenset({quirk} - {None})))["messages"]
    waiting: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in waiting
            waiting.discard(message["tool_call_id"])
        else:
            assert not waiting
            waiting = {call["id"] for call in message.get("tool_calls", ())}
    assert "note" in json.dumps(messages)


@pytest.mark.parametrize("shape", SHAPES)
def test_alternating_roles(shape):
    """For a server that insists on it, no user turn follows a result or another user turn."""
    built = body(*SHAPES[shape], GO, quirks=Quirks(frozenset({Quirk.ALTERNATE})))
    order = roles(built)
    for before, after, message in zip(order, order[1:], built["messages"][1:], strict=False):
        # An image cannot be part of a result.
        is_image = not isinstance(message["content"], str)
        assert (before, after) not in {("user", "user"), ("tool", "user")} or is_image


def test_what_stands_for_a_missing_result_and_a_missing_call():
    """A call without a result gets one that says so, and a result without a call becomes words."""
    built = body(GO, calls(1), user(result(7, "seven")), GO)["messages"]
    assert [message["role"] for message in built] == ["user", "assistant", "tool", "user", "user"]
    assert built[2]["content"] == "(no result)"
    assert "seven" in built[3]["content"]


CLAUDE = {"kind": "openrouter", "base_url": "https://openrouter.ai/api"}


@pytest.mark.parametrize(
    ("turns", "system", "marked"),
    [
        ([GO], [text("S", **MARK)], ["system"]),
        ([GO], [text("A", **MARK), text("B")], ["system"]),
        ([user(text("q", **MARK))], "S", ["user"]),
        ([user(text("q"), text("r", **MARK))], [text("S", **MARK)], ["system", "user"]),
        ([GO, calls(1), user(result(1, **MARK))], [], ["tool"]),
        ([GO, {"role": "assistant", "content": [text("a", **MARK)]}, GO], [], ["assistant"]),
        ([GO], "S", []),
    ],
)
@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4.6", "qwen/qwen3"])
def test_marks(turns, system, marked, model):
    """Each mark of the client stays where it is for a Claude model, and no other gets one."""
    settings = {**CLAUDE, "models": {}}
    built = body(*turns, system=system, settings=settings, model=model)
    with_mark = [m["role"] for m in built["messages"] if "cache_control" in json.dumps(m)]
    assert with_mark == (marked if "claude" in model else [])
    dropped = Quirks(dropped=frozenset({"cache_control"}))
    refused = body(*turns, system=system, settings=settings, model=model, quirks=dropped)
    assert "cache_control" not in json.dumps(refused)
