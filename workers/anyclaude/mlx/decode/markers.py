"""The markers that divide a model's answer into text, thinking and calls, as data.

mlx-lm knows each tokenizer's markers. Here they become transitions between modes, which is all that
the scanner has to know. The transitions are those of `make_text_state_machine` in mlx-lm; that
function itself is not used, since it delays more text than it must and does not report which stop
sequence matched.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.decode.notations import family_of

_MARKUP: Final = re.compile(r"<\S+>|\[\S+\]")


class Mode(Enum):
    """What the text that is being generated belongs to. The values are mlx-lm's state names."""

    TEXT = "normal"
    THINKING = "reasoning"
    CALL = "tool"
    # The header of a message, in templates that have one. It is never sent to the client.
    HEADER = "header"


@dataclass(frozen=True)
class Transition:
    """A marker that ends one mode and begins another."""

    marker: str
    to: Mode
    # Whether the marker is also the beginning of the text that follows.
    kept: bool = False


@dataclass(frozen=True)
class Markers:
    """All markers of one answer."""

    transitions: Mapping[Mode, Sequence[Transition]]
    initial: Mode
    # Ends thinking. After a call that began inside thinking it may come once more.
    think_end: str | None


def markers_of(
    tokenizer: TokenizerWrapper, tool_names: Sequence[str], *, in_thinking: bool
) -> Markers:
    """The markers of an answer.

    Args:
        tool_names: the tools that the model may call; if there are none, call markers are text.
        in_thinking: whether the prompt has already opened a thinking block.
    """
    transitions: dict[Mode, list[Transition]] = {Mode.TEXT: []}
    if tokenizer.has_thinking and not tokenizer.response_transitions:
        transitions[Mode.TEXT].append(Transition(tokenizer.think_start, Mode.THINKING))
        transitions[Mode.THINKING] = [Transition(tokenizer.think_end, Mode.TEXT)]
    transitions[Mode.TEXT] += [
        Transition(marker, Mode.TEXT) for marker in tokenizer.structural_markers
    ]
    for state, pairs in tokenizer.response_transitions.items():
        transitions.setdefault(Mode(state), []).extend(
            Transition(marker, Mode(to)) for marker, to in pairs
        )
    if tool_names and tokenizer.has_tool_calling:
        _add_calls(transitions, tokenizer, tool_names)
    else:
        transitions = _without_calls(transitions)
    initial = _initial(tokenizer, transitions, in_thinking)
    return Markers(transitions, initial, tokenizer.think_end)


def silent_tokens(
    tokenizer: TokenizerWrapper, markers: Markers, stop_sequences: Sequence[str]
) -> Mapping[Mode, frozenset[int]]:
    """The control tokens that mean nothing in each mode and are left out of the answer.

    A model sometimes writes a control token out of place, such as the start of another turn, or of
    a call although no tool is offered. The same characters in ordinary tokens are text and stay.
    Inside a call every token stays, since the arguments of some families are made of control
    tokens; and so does a token that is part of a stop sequence.
    """
    used = {
        mode: "\n".join(transition.marker for transition in row)
        for mode, row in markers.transitions.items()
    }
    anywhere, stops = "\n".join(used.values()), "\n".join(stop_sequences)

    def silent(mode: Mode) -> frozenset[int]:
        return frozenset(
            token.id
            for token in _control_tokens(tokenizer)
            # A marker of several tokens may begin in one mode and end in another.
            if token.text not in (anywhere if token.special else used[mode])
            and token.text not in stops
        )

    return {mode: silent(mode) for mode in used if mode is not Mode.CALL}


def marker_tokens(tokenizer: TokenizerWrapper, markers: Markers) -> Mapping[str, int]:
    """The markers that are tokens of their own, with their token ids."""
    texts = {one.marker for row in markers.transitions.values() for one in row}
    return {token.text: token.id for token in _control_tokens(tokenizer) if token.text in texts}


@dataclass(frozen=True)
class _ControlToken:
    id: int
    text: str
    special: bool


@functools.lru_cache(maxsize=4)
def _control_tokens(tokenizer: TokenizerWrapper) -> Sequence[_ControlToken]:
    """The added tokens that are special, or that are markup of the template.

    Other added tokens are text: some tokenizers add runs of spaces, or HTML tags.
    """
    template = f"{tokenizer.chat_template}\n{tokenizer.tool_call_start}\n{tokenizer.tool_call_end}"
    template += f"\n{tokenizer.think_start}\n{tokenizer.think_end}"
    return [
        _ControlToken(int(token_id), token.content, bool(token.special))
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special or (_MARKUP.fullmatch(token.content) and token.content in template)
    ]


def _add_calls(
    transitions: dict[Mode, list[Transition]],
    tokenizer: TokenizerWrapper,
    tool_names: Sequence[str],
) -> None:
    start, end = tokenizer.tool_call_start, tokenizer.tool_call_end
    opening = [Transition(start, Mode.CALL)]
    # Only the names of tools that were offered begin a call without the start marker.
    opening += [
        Transition(unmarked.replace("{name}", name), Mode.CALL, kept=True)
        for unmarked in family_of(tokenizer).unmarked_openings
        for name in tool_names
    ]
    if not any(one.to is Mode.CALL for row in transitions.values() for one in row):
        transitions[Mode.TEXT] += opening
    if Mode.THINKING in transitions:
        transitions[Mode.THINKING] += opening
    transitions[Mode.CALL] = [Transition(end, Mode.TEXT)] if end else []


def _without_calls(
    transitions: Mapping[Mode, Sequence[Transition]],
) -> dict[Mode, list[Transition]]:
    return {
        mode: [one for one in row if one.to is not Mode.CALL] for mode, row in transitions.items()
    }


def _initial(
    tokenizer: TokenizerWrapper,
    transitions: Mapping[Mode, Sequence[Transition]],
    in_thinking: bool,
) -> Mode:
    if tokenizer.response_initial_state:
        return Mode(tokenizer.response_initial_state)
    return Mode.THINKING if in_thinking and Mode.THINKING in transitions else Mode.TEXT
