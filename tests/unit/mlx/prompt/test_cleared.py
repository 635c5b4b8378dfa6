"""The thinking that a request keeps: the context edit `clear_thinking_20251015`."""

from typing import Any

import pytest

from anyclaude.messages.requests import CountTokensRequest
from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.mlx.prompt.cleared import ALL_TURNS, kept_thinking_turns
from tests.models.requests import Block, assistant, call, request, result, text, thinking, user
from tests.models.tokenizers import tokenizer


def _asked(edits: Any, *messages: Block) -> CountTokensRequest:
    return request(*(messages or (user("Hi."),)), context_management={"edits": edits})


def _edit(**fields: Any) -> dict[str, Any]:
    return {"type": "clear_thinking_20251015", **fields}


@pytest.mark.parametrize(
    ("edits", "turns"),
    [
        ([_edit(keep="all")], ALL_TURNS),
        ([_edit(keep={"type": "all"})], ALL_TURNS),
        ([_edit(keep={"type": "thinking_turns", "value": 3})], 3),
        ([_edit()], 1),
        ([{"type": "clear_tool_uses_20250919"}], None),
        ([{"type": "compact_20260112"}, _edit(keep="all")], ALL_TURNS),
        ([_edit(keep={"type": "thinking_turns", "value": 0})], None),
        ([_edit(keep={"type": "thinking_turns", "value": True})], None),
        ([_edit(keep=["some"])], None),
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
    assert kept_thinking_turns(request(user("Hi."))) is None
    assert kept_thinking_turns(request(user("Hi."), context_management=[])) is None


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


@pytest.mark.parametrize(("value", "kept"), [(1, "4"), (2, "34"), (3, "1234"), (4, "1234")])
def test_only_the_last_turns_keep_their_thinking(value: int, kept: str) -> None:
    """Thinking before the last N turns is removed; a tool loop counts as one turn."""
    words = tokenizer("chatml")
    keep = {"type": "thinking_turns", "value": value}
    prompt = PromptRenderer(words).render(_asked([_edit(keep=keep)], *_loops()))
    said = words.decode(prompt.token_ids)
    assert "".join(number for number in "1234" if f"thought-{number}" in said) == kept
    assert all(answer in said for answer in ("One.", "Two.", "Third?"))


def test_turns_without_thinking_do_not_count() -> None:
    """The last turn that has thinking keeps it, however many turns without thinking follow."""
    words = tokenizer("chatml")
    messages = [*_loops()[:6], user("Again?"), assistant("Plain."), user("And?")]
    prompt = PromptRenderer(words).render(_asked([_edit()], *messages))
    said = words.decode(prompt.token_ids)
    assert "thought-3" in said
    assert "thought-2" not in said
