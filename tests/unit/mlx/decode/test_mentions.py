"""Markers that a model only mentions: in code, or inside thinking, in ordinary tokens."""

import pytest

from tests.models.answers import answer
from tests.models.families import encode, encode_bytes, json_call, tokenizer

CALL = json_call({"command": "ls"})


@pytest.mark.parametrize(
    "text",
    [
        "Use the `<tool_call>` tag to call Bash.",
        f"Write:\n```\n{CALL}\n```\nand so on.",
        f"Write:\n```json\n\n{CALL}\n\n{CALL}\n```\n\nDone.",
        f"Write `{CALL}` and `<tool_call>`.",
        f"Write ``{CALL}`` or ```{CALL}``` inline.",
        f"~~~xml\n{CALL}\n~~~\nand so on.",
        f"````\n```\n{CALL}\n````\nand so on.",
        f"- So:\n  ```\n  {CALL}\n  ```\n",
        f"> {CALL}\n\nand so on.",
    ],
)
@pytest.mark.parametrize("thinking", [False, True])
def test_a_marker_in_code_is_text(text: str, thinking: bool) -> None:
    """A marker spelled out in a code block or between backquotes changes no character."""
    wrapper = tokenizer("json_tools", thinking=thinking)
    assert answer(wrapper, encode_bytes(wrapper, text)).brief() == [("text", "", text)]


@pytest.mark.parametrize("mention", ["<tool_call>", CALL, f"a <tool_call> and {CALL}\n"])
def test_a_marker_spelled_out_in_thinking_is_thinking(mention: str) -> None:
    """It makes no call and does not end the thinking; the token that is the marker does."""
    wrapper = tokenizer("json_tools", thinking=True)
    tokens = encode(wrapper, "<think>") + encode_bytes(wrapper, f"I might write {mention} here.")
    result = answer(wrapper, [*tokens, *encode(wrapper, f"</think>No.{CALL}")])
    assert result.brief() == [
        ("thinking", "", f"I might write {mention} here."),
        ("text", "", "No."),
        ("tool_use", "Bash", '{"command":"ls"}'),
    ]
    written = answer(wrapper, encode(wrapper, f"<think>I write {CALL}</think>"))
    assert written.kinds() == ["thinking", "tool_use"]


@pytest.mark.parametrize(
    "code", ["```\nx\n```", "~~~\nx\n~~~", "```a\n```b\nx\n```\n```", "`` ` ``"]
)
def test_every_call_behind_code_is_made(code: str) -> None:
    """Code that ends right before the first of several calls hides none of them."""
    wrapper = tokenizer("json_tools")
    written = encode_bytes(wrapper, f"{code}\n{CALL}\n{CALL}")
    assert answer(wrapper, written).kinds() == ["text", "tool_use", "tool_use"]


def test_a_call_behind_code_is_made() -> None:
    """Code that is closed, and a marker that is a token, do not hide a call."""
    wrapper = tokenizer("json_tools")
    closed = f"See `x` and\n```\ny\n```\n{CALL}"
    assert answer(wrapper, encode_bytes(wrapper, closed)).kinds() == ["text", "tool_use"]
    assert answer(wrapper, encode(wrapper, f"See ```\n{CALL}")).kinds() == ["text", "tool_use"]
