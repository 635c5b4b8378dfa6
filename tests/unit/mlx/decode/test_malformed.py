"""Random damage: nothing raises, the events stay well formed, and no value is lost silently."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.answers import TOOLS, answer
from tests.models.families import (
    CALLS,
    FAMILIES,
    THINKING,
    encode,
    encode_bytes,
    json_call,
    tagged,
    tokenizer,
)

SENTINEL = "k9q-value"
FRAGMENTS = [
    *["{", "}", "[", "]", '"', "'", ",", ":", "\\", "\n", "<", ">", "</", "Bash", "null", "\x00"],
    *["<tool_call>", "</tool_call>", "<function=", "<function=Bash>", "</function>", "<think>"],
    *["<parameter=command>", "</parameter>", "<arg_key>", "</arg_value>", "```", "é", "1e999"],
    *['"arguments"', '"name": "Bash"', "<invoke name=", "[TOOL_CALLS]", "[ARGS]", "call:Bash{"],
]
CALL_TEXTS = {
    "json_tools": json_call({"command": SENTINEL, "timeout": 5}),
    **{name: tagged(name, command=SENTINEL, timeout="5") for name in ("qwen3_coder", "glm47")},
    "minimax_m2": tagged("minimax_m2", command=SENTINEL, timeout="5"),
    "mistral": f'[TOOL_CALLS]Bash[ARGS]{{"command": "{SENTINEL}", "timeout": 5}}',
}


@settings(max_examples=400, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    pieces=st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=20),
    whole=st.booleans(),
    thinking=st.booleans(),
    in_thinking=st.booleans(),
    cut=st.booleans(),
)
def test_any_text_gives_well_formed_events(
    family: str, pieces: list[str], whole: bool, thinking: bool, in_thinking: bool, cut: bool
) -> None:
    """Markers and fragments in any order give blocks that a strict client accepts."""
    wrapper = tokenizer(family, thinking=thinking)
    text = "".join(pieces).encode(errors="replace").decode()
    if whole and wrapper.tool_call_start:
        text = wrapper.tool_call_start + text
    answer(wrapper, text, in_thinking=in_thinking, cut=cut, stop_sequences=["STOP"])


@settings(max_examples=200, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    seed=st.lists(st.integers(0, 10_000), max_size=60),
    fast=st.booleans(),
    cut=st.booleans(),
)
def test_any_tokens_give_well_formed_events(
    family: str, seed: list[int], fast: bool, cut: bool
) -> None:
    """So do tokens that no text has: incomplete characters and misplaced special tokens."""
    wrapper = tokenizer(family, thinking=True, fast=fast)
    markers = encode(wrapper, "".join([*FAMILIES[family].markers, *THINKING])) or [0]
    tokens = [markers[n % len(markers)] if n % 3 == 0 else n % len(wrapper) for n in seed]
    answer(wrapper, tokens, cut=cut)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), family=st.sampled_from(sorted(CALL_TEXTS)))
def test_damaged_calls_are_made_or_reported(data: st.DataObject, family: str) -> None:
    """Damage outside a value never loses it: it is in a call, in a text or in a failed call."""
    before, _, behind = CALL_TEXTS[family].partition(SENTINEL)
    for _ in range(data.draw(st.integers(1, 3))):
        fragment = data.draw(st.sampled_from(["", *FRAGMENTS]))
        at, removed = data.draw(st.integers(0, 60)), data.draw(st.integers(0, 2))
        if data.draw(st.booleans()):
            before = before[:at] + fragment + before[at + removed :]
        else:
            behind = behind[:at] + fragment + behind[at + removed :]
    text = before + SENTINEL + behind
    result = answer(tokenizer(family), text)
    assert result.blocks
    assert any(SENTINEL in block.text for block in result.blocks)


@pytest.mark.parametrize("family", ["qwen3_coder", "glm47", "minimax_m2"])
def test_an_argument_given_twice_is_reported(family: str) -> None:
    """Neither value is chosen: the call fails."""
    twice = tagged(family, command=SENTINEL, timeout="5").replace("timeout", "command")
    result = answer(tokenizer(family), twice)
    assert [block.name for block in result.blocks] == ["unreadable_call_of_Bash"]


@settings(max_examples=200, deadline=None)
@given(
    family=st.sampled_from(sorted(CALLS)),
    before=st.sampled_from(["", "Well", "<think>hm</think>"]),
    at=st.integers(0, 400),
    cut=st.booleans(),
)
def test_answers_ending_anywhere(family: str, before: str, at: int, cut: bool) -> None:
    """An answer cut off after any token contains only calls that the whole answer contains."""
    wrapper = tokenizer(family, thinking=True)
    whole = [block.text for block in answer(wrapper, before + CALLS[family]).of("tool_use")]
    tokens = encode_bytes(wrapper, before + CALLS[family])[:at]
    result = answer(wrapper, tokens, tools=TOOLS, cut=cut)
    if cut:
        made = [block.text for block in result.of("tool_use")]
        assert made == whole[: len(made)]
