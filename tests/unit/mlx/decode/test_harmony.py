"""gpt-oss: messages with headers, channels, recipients, and the tokens that end an answer."""

import pytest

from tests.models.answers import answer
from tests.models.families import encode, encode_bytes, tokenizer

HARMONY = tokenizer("harmony")
CALL = '{"command": "ls"}'
MADE = ("tool_use", "Bash", '{"command":"ls"}')
NEXT = "<|end|><|start|>assistant"


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>commentary to=functions.Bash <|constrain|>json<|message|>",
        "<|channel|>commentary to=functions.Bash json<|message|>",
        "<|channel|>commentary to=functions.Bash<|message|>",
        " to=functions.Bash<|channel|>commentary json<|message|>",
        " to=functions.Bash<|channel|>commentary <|constrain|>json<|message|>",
        "<|channel|>analysis to=functions.Bash code<|message|>",
        "<|channel|>commentary to=Bash <|constrain|>json<|message|>",
    ],
)
@pytest.mark.parametrize("end", ["<|call|>", "", "<|end|>"])
def test_every_header_of_a_call_is_read(header: str, end: str, bytewise: bool) -> None:
    """The recipient may stand before or behind the channel, and the content type may vary."""
    tokens = (encode_bytes if bytewise else encode)(HARMONY, header + CALL + end)
    assert answer(HARMONY, tokens).brief() == [MADE]


def test_channels_become_blocks() -> None:
    """Analysis is thinking; final and commentary without a recipient are text."""
    text = (
        f"<|channel|>analysis<|message|>Look first.{NEXT}<|channel|>commentary<|message|>I look."
        f"{NEXT}<|channel|>commentary to=functions.Bash <|constrain|>json<|message|>{CALL}<|call|>"
    )
    assert answer(HARMONY, text).brief() == [
        ("thinking", "", "Look first."),
        ("text", "", "I look."),
        MADE,
    ]
    easy = f"<|channel|>analysis<|message|>Easy.{NEXT}<|channel|>final<|message|>Four."
    assert answer(HARMONY, easy).brief() == [("thinking", "", "Easy."), ("text", "", "Four.")]


def test_a_forgotten_end_still_begins_the_next_message() -> None:
    """A message that the next header ends loses nothing, and its markup is not shown."""
    text = (
        "<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Four."
        f"<|start|>assistant<|channel|>commentary to=functions.Bash<|message|>{CALL}"
    )
    assert answer(HARMONY, text).brief() == [("thinking", "", "Hm."), ("text", "", "Four."), MADE]


def test_several_calls_and_words_behind_them() -> None:
    """Calls that the model does not stop at are all made, and a final message behind them stays."""
    one = f"<|channel|>commentary to=functions.Bash json<|message|>{CALL}"
    text = f"{one}<|call|><|start|>assistant{one}{NEXT}<|channel|>final<|message|>Done."
    assert answer(HARMONY, text).brief() == [MADE, MADE, ("text", "", "Done.")]


def test_the_tokens_that_end_an_answer() -> None:
    """An answer ends at a call and at its return, also if the config names neither."""
    ends = {HARMONY.decode([token]) for token in HARMONY.eos_token_ids}
    assert {"<|call|>", "<|return|>"} <= ends


def test_without_tools_a_header_is_no_text() -> None:
    """Where no tool is offered, thinking and final are read as before."""
    text = f"<|channel|>analysis<|message|>Hm.{NEXT}<|channel|>final<|message|>Four."
    assert answer(HARMONY, text, tools=()).kinds() == ["thinking", "text"]
