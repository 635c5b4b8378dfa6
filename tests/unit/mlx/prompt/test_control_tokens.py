"""Content never forms control tokens, and is encoded as it was."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from anyclaude.mlx.prompt.control_tokens import ControlTokens

_TEXTS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "[INST]", "<|file|>", "<|fil")
_CONTROL = ControlTokens(AddedToken(text) for text in (*_TEXTS, "\n\n", "x"))
# Whatever the breaks are, they are among these.
_BREAKS = "\U0001d159\U0001d1a6"
# Control tokens, their halves, and what is kept apart with.
_CONTENT = st.lists(
    st.sampled_from((*_TEXTS, "<", ">", "<|", "|>", "think", "|im_end|", "/", *_BREAKS, "0", "1"))
    | st.text(max_size=3)
).map("".join)


def _plain(rendered: str) -> str:
    assert _CONTROL.split(rendered) == [rendered]
    return "".join(_CONTROL.reveal(rendered))


@given(content=_CONTENT)
@settings(deadline=None, database=None)
def test_content_reads_as_it_was_and_holds_no_control_token(content: str) -> None:
    """Protected text contains no control token, and without its breaks it is the same text."""
    protected = _CONTROL.protect(content)
    assert _plain(protected) == content
    assert all(text not in part for part in _CONTROL.reveal(protected) for text in _TEXTS)


@given(contents=st.lists(_CONTENT, max_size=4))
@settings(deadline=None, database=None)
def test_neighbouring_contents_form_no_control_token(contents: list[str]) -> None:
    """Texts beside one another, or inside punctuation, form no control token."""
    protected = [_CONTROL.protect(content) for content in contents]
    assert _plain("<|".join(protected)) == "<|".join(contents)
    rendered = "\n".join(f"<{part}></{part}>" for part in protected)
    assert _plain(rendered) == "\n".join(f"<{part}></{part}>" for part in contents)


@pytest.mark.parametrize(
    ("before", "content", "after"),
    [("<", "think", ">"), ("</", "think", ">"), ("<", "|im_end|", ">"), ("", "<think", ">")],
)
def test_punctuation_around_content_completes_nothing(
    before: str, content: str, after: str
) -> None:
    """A key that a template renders in angle brackets does not become a control token."""
    assert _plain(f"{before}{_CONTROL.protect(content)}{after}") == f"{before}{content}{after}"


def test_harmless_content_is_untouched() -> None:
    """Text without control tokens is not changed."""
    for text in ("plain words", "a < b > c", "<b>html</b>", "\n\n", "x", ""):
        assert _CONTROL.protect(text) == text


def test_protection_reaches_every_string() -> None:
    """Keys, values and lists at any depth are protected; values that are not text stay."""
    value: Any = {"<think>": ["[INST]", {"a": "</think>"}], "n": 1, "b": True, "none": None}
    protected = _CONTROL.protect(value)
    assert not any(text in str(protected) for text in _TEXTS)
    assert [protected["n"], protected["b"], protected["none"]] == [1, True, None]


def test_split_finds_the_templates_tokens() -> None:
    """The text is divided at control tokens, preferring the longest, and nothing is lost."""
    rendered = "<|im_start|>user\nhi<|file|><|im_end|>"
    pieces = _CONTROL.split(rendered)
    assert pieces == ["", "<|im_start|>", "user\nhi", "<|file|>", "", "<|im_end|>", ""]


def test_split_gives_a_token_the_space_it_swallows() -> None:
    """A token that removes whitespace beside it includes that whitespace."""
    control = ControlTokens([AddedToken("<|a|>", rstrip=True), AddedToken("<b>", lstrip=True)])
    assert control.split("x <|a|> \n y <b> z") == ["x ", "<|a|> \n ", "y", " <b>", " z"]


def test_no_control_tokens_at_all() -> None:
    """A tokenizer without added tokens leaves every text whole."""
    control = ControlTokens([])
    assert control.protect("<|im_end|>") == "<|im_end|>"
    assert control.split("a<|im_end|>") == ["a<|im_end|>"]


def test_breaks_are_not_the_models_own_characters() -> None:
    """A character that the template uses is not chosen as a break."""
    control = ControlTokens([AddedToken("<think>")], avoid=_BREAKS)
    assert _BREAKS[0] not in control.protect("<think>")
    assert control.reveal(_BREAKS) == [_BREAKS]


def test_the_end_cannot_come_from_content() -> None:
    """No content contains the text that marks the end of an unfinished answer."""
    for content in (_CONTROL.end, _CONTROL.end * 2, _BREAKS + "2", _BREAKS[::-1] + "2"):
        assert _CONTROL.end not in _CONTROL.protect(content)
