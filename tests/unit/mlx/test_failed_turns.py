"""How often in a row the model's calls failed, as the conversation shows it."""

from typing import Any

import pytest

from anyclaude.messages.requests import MessagesRequest
from anyclaude.mlx.jobs import failed_turns


def turns(*names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Assistant turns that call tools of these names, each with its results."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Go."}]
    for called in names:
        uses = [{"type": "tool_use", "id": name, "name": name, "input": {}} for name in called]
        results = [{"type": "tool_result", "tool_use_id": n, "content": "x"} for n in called]
        text = {"type": "text", "text": "Hm."}
        messages += [
            {"role": "assistant", "content": uses or [text]},
            {"role": "user", "content": results or [text]},
        ]
    return messages


@pytest.mark.parametrize(
    ("names", "count"),
    [
        ((), 0),
        ((("Bash",),), 0),
        ((("unreadable_call_of_Bash",),), 1),
        ((("unreadable_call",), ("Nope",)), 2),
        ((("unreadable_call",), ("Bash",), ("Nope",)), 1),
        ((("unreadable_call", "Bash"),), 0),
        ((("unreadable_call",), ()), 0),
    ],
)
def test_only_turns_without_any_offered_tool_count(
    names: tuple[tuple[str, ...], ...], count: int
) -> None:
    """A call that a tool answered, or an answer without calls, ends the row."""
    body = MessagesRequest(
        model="",
        max_tokens=1,
        messages=turns(*names),
        tools=[{"name": "Bash", "input_schema": {"type": "object"}}],
    )
    assert failed_turns(body) == count
