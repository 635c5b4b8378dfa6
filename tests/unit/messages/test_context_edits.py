"""Context edits: what a request asks to clear, and what the response says about it."""

import json
from typing import Any

import pytest

from anyclaude.messages.context_edits import (
    ALL_TURNS,
    CLEARED,
    apply_edits,
    asks_for_edits,
    edits_in,
    edits_json,
    kept_thinking_turns,
)
from anyclaude.messages.requests import MessagesRequest
from tests.models.requests import Block, assistant, call, request, result, text, thinking, user


def _asked(edits: Any, *messages: Block) -> MessagesRequest:
    return request(*(messages or (user("Hi."),)), context_management={"edits": edits})


def _thinking_edit(**fields: Any) -> dict[str, Any]:
    return {"type": "clear_thinking_20251015", **fields}


def _tools_edit(**fields: Any) -> dict[str, Any]:
    return {"type": "clear_tool_uses_20250919", **fields}


def _at(value: int, kind: str = "tool_uses") -> dict[str, Any]:
    return {"type": kind, "value": value}


def _count(asked: MessagesRequest) -> int:
    """A token for each character of the messages."""
    return len(json.dumps([message.model_dump() for message in asked.messages]))


def _loop(calls: int) -> list[Block]:
    turns = [user("Look around.")]
    for number in range(calls):
        name = "Read" if number % 2 else "Bash"
        turns.append(assistant(call(f"toolu_{number}", f"look {number}", name)))
        turns.append(user(result(f"toolu_{number}", f"output-{number} " * 40)))
    return turns


def _outputs(asked: MessagesRequest) -> list[int]:
    """The numbers of the calls whose results are still there."""
    said = json.dumps([message.model_dump() for message in asked.messages])
    return [number for number in range(20) if f"output-{number} " in said]


@pytest.mark.parametrize(
    ("edits", "turns"),
    [
        ([_thinking_edit(keep="all")], ALL_TURNS),
        ([_thinking_edit(keep={"type": "all"})], ALL_TURNS),
        ([_thinking_edit(keep=_at(3, "thinking_turns"))], 3),
        ([_thinking_edit()], 1),
        ([_tools_edit()], None),
        ([{"type": "compact_20260112"}, _thinking_edit(keep="all")], ALL_TURNS),
        ([_thinking_edit(keep=_at(0, "thinking_turns"))], None),
        ([_thinking_edit(keep={"type": "thinking_turns", "value": True})], None),
        ([_thinking_edit(keep=["some"])], None),
        (["all", None, 3], None),
        ("all", None),
        (None, None),
    ],
)
def test_what_a_request_keeps(edits: Any, turns: int | None) -> None:
    """Every documented form is understood, and any other form is ignored."""
    assert kept_thinking_turns(_asked(edits)) == turns


def test_a_request_without_context_management_says_nothing() -> None:
    """Without the field, or with one of another shape, the template decides."""
    for asked in (request(user("Hi.")), request(user("Hi."), context_management=[])):
        assert kept_thinking_turns(asked) is None
        assert not asks_for_edits(asked)
        assert apply_edits(asked, _count).applied == ()


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"trigger": _at(5)}, [3, 4, 5]),
        ({"trigger": _at(6)}, [0, 1, 2, 3, 4, 5]),
        ({"trigger": _at(1), "keep": _at(1)}, [5]),
        ({"trigger": _at(1), "keep": _at(0)}, []),
        ({"trigger": _at(1), "keep": _at(9)}, [0, 1, 2, 3, 4, 5]),
        ({"trigger": _at(1000, "input_tokens")}, [3, 4, 5]),
        ({"trigger": _at(100_000, "input_tokens")}, [0, 1, 2, 3, 4, 5]),
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"trigger": _at(1), "keep": _at(1), "exclude_tools": ["Read"]}, [1, 3, 4, 5]),
        ({"trigger": _at(1), "clear_at_least": _at(500, "input_tokens")}, [3, 4, 5]),
        ({"trigger": _at(1), "clear_at_least": _at(9999, "input_tokens")}, [0, 1, 2, 3, 4, 5]),
        ({"trigger": {"type": "unknown", "value": 1}}, [0, 1, 2, 3, 4, 5]),
        ({"trigger": {"type": "tool_uses", "value": "1"}}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_old_results_are_cleared(fields: dict[str, Any], left: list[int]) -> None:
    """Past the trigger, all but the last results are cleared, and the response says how much."""
    asked = _asked([_tools_edit(**fields)], *_loop(6))
    edited = apply_edits(asked, _count)

    assert _outputs(edited.request) == left
    if len(left) == 6:
        assert (edited.request, edited.applied) == (asked, ())
        return
    (told,) = edits_json(edited.applied)
    saved = _count(asked) - _count(edited.request)
    assert told == {
        "type": "clear_tool_uses_20250919",
        "cleared_input_tokens": saved,
        "cleared_tool_uses": 6 - len(left),
    }
    assert edited.cleared_tokens == saved > 0
    blocks = [block for message in edited.request.messages for block in message.blocks()]
    results = [block for block in blocks if block["type"] == "tool_result"]
    assert [block["tool_use_id"] for block in results] == [f"toolu_{n}" for n in range(6)]
    assert sum(block["content"] == CLEARED for block in results) == 6 - len(left)


@pytest.mark.parametrize(
    ("inputs", "empty"),
    [(None, []), (False, []), (True, [0, 1, 2]), (["Read"], [1]), (["Write"], [])],
)
def test_inputs_are_cleared_on_request(inputs: Any, empty: list[int]) -> None:
    """The inputs of cleared calls stay, unless the edit clears all of them or those of a tool."""
    edit = _tools_edit(trigger=_at(1), clear_tool_inputs=inputs)
    edited = apply_edits(_asked([edit], *_loop(6)), _count).request
    blocks = [block for message in edited.messages for block in message.blocks()]
    calls = [block for block in blocks if block["type"] == "tool_use"]
    assert [number for number, block in enumerate(calls) if block["input"] == {}] == empty


def _loops() -> list[Block]:
    """Three turns: a tool loop with a reminder in it, an answer, and a tool loop in progress."""
    return [
        user("First?"),
        assistant(thinking("thought-1"), call("toolu_1")),
        user(result("toolu_1"), text("<system-reminder>Note.</system-reminder>")),
        assistant(thinking("thought-2"), text("One.")),
        user("Second?"),
        assistant(thinking("thought-3"), text("Two.")),
        user("Third?"),
        assistant(thinking("thought-4"), call("toolu_2")),
        user(result("toolu_2")),
    ]


def _thoughts(asked: MessagesRequest) -> str:
    said = json.dumps([message.model_dump() for message in asked.messages])
    return "".join(number for number in "1234" if f"thought-{number}" in said)


@pytest.mark.parametrize(
    ("value", "kept", "turns"), [(1, "4", 2), (2, "34", 1), (3, "1234", 0), (4, "1234", 0)]
)
def test_only_the_last_turns_keep_their_thinking(value: int, kept: str, turns: int) -> None:
    """Thinking before the last N turns is removed; a tool loop counts as one turn."""
    edit = _thinking_edit(keep=_at(value, "thinking_turns"))
    asked = _asked([edit], *_loops())
    edited = apply_edits(asked, _count)

    assert _thoughts(edited.request) == kept
    assert [each.cleared_thinking_turns for each in edited.applied] == [turns] * bool(turns)
    said = json.dumps([message.model_dump() for message in edited.request.messages])
    assert all(answer in said for answer in ("One.", "Two.", "Third?"))


def test_turns_without_thinking_do_not_count() -> None:
    """The last turn that has thinking keeps it, however many turns without thinking follow."""
    messages = [*_loops()[:6], user("Again?"), assistant("Plain."), user("And?")]
    assert _thoughts(apply_edits(_asked([_thinking_edit()], *messages), _count).request) == "3"


def test_a_message_that_only_thought_is_left_out() -> None:
    """No empty message remains: an interrupted turn would otherwise be refused for good."""
    cut = assistant(thinking("Hm, "))
    last = assistant(thinking("So."), text("Yes."))
    asked = _asked([_thinking_edit()], user("One."), cut, user("Two."), last, user("Three."))
    edited = apply_edits(asked, _count)
    assert [message.role for message in edited.request.messages] == (
        ["user", "user", "assistant", "user"]
    )
    assert [edit.cleared_thinking_turns for edit in edited.applied] == [1]


def test_edits_are_applied_in_their_order() -> None:
    """Each edit sees what the one before it left, and both are named."""
    edits = [_thinking_edit(), _tools_edit(trigger=_at(1), keep=_at(1)), {"type": "new_20310101"}]
    edited = apply_edits(_asked(edits, *_loops()), _count)
    told = edits_json(edited.applied)
    assert [edit["type"] for edit in told] == [edit["type"] for edit in edits[:2]]
    assert list(edits_in({"context_management": {"applied_edits": told}})) == list(edited.applied)


@pytest.mark.parametrize(
    "holder",
    [{}, {"context_management": None}, {"context_management": {"applied_edits": {}}}, {"a": 1}],
)
def test_a_server_that_names_no_edits(holder: dict[str, Any]) -> None:
    """A response of another shape names none."""
    assert list(edits_in(holder)) == []
