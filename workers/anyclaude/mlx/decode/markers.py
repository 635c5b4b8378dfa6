"""Which markers divide a model's answer, as data.

mlx-lm knows each tokenizer's markers; this turns them into edges between modes, so that the scanner
needs to know neither. The edges are those of `make_text_state_machine` in mlx-lm, which itself does
not serve: it holds back more text than it must and does not tell which stop word matched.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from anyclaude.mlx.adapter import TokenizerWrapper, parser_family

_MARKUP: Final = re.compile(r"<\S+>|\[\S+\]")


class Mode(Enum):
    """What the text being generated is part of; the values are mlx-lm's state names."""

    TEXT = "normal"
    THINKING = "reasoning"
    CALL = "tool"
    # The head of a message in templates that have one: routing, never shown.
    HEADER = "header"


@dataclass(frozen=True)
class Edge:
    """A marker that ends a mode."""

    marker: str
    to: Mode
    # The marker is also the beginning of what follows.
    kept: bool = False


@dataclass(frozen=True)
class Grammar:
    edges: Mapping[Mode, Sequence[Edge]]
    initial: Mode
    # Ends thinking; a stray one follows a call that was opened inside thinking.
    think_end: str | None


def grammar_of(
    tokenizer: TokenizerWrapper, tool_names: Sequence[str], *, in_thinking: bool
) -> Grammar:
    """The grammar of an answer.

    Args:
        tool_names: tools the model may call; without any, call markers are plain text.
        in_thinking: the prompt has already opened the thinking block.
    """
    edges: dict[Mode, list[Edge]] = {Mode.TEXT: []}
    if tokenizer.has_thinking:
        edges[Mode.TEXT].append(Edge(tokenizer.think_start, Mode.THINKING))
        edges[Mode.THINKING] = [Edge(tokenizer.think_end, Mode.TEXT)]
    edges[Mode.TEXT] += [Edge(marker, Mode.TEXT) for marker in tokenizer.structural_markers]
    for state, transitions in tokenizer.response_transitions.items():
        edges.setdefault(Mode(state), []).extend(
            Edge(marker, Mode(to)) for marker, to in transitions
        )
    if tool_names and tokenizer.has_tool_calling:
        _add_calls(edges, tokenizer, tool_names)
    else:
        edges = _without_calls(edges)
    return Grammar(edges, _initial(tokenizer, edges, in_thinking), tokenizer.think_end)


def silent_tokens(
    tokenizer: TokenizerWrapper, grammar: Grammar, stop_sequences: Sequence[str]
) -> Mapping[Mode, frozenset[int]]:
    """For each mode the control tokens that divide nothing in it, and are no words either.

    A model that writes one out of place, such as the start of another turn, or of a call where no
    tool is offered, says nothing by it; the same letters in ordinary tokens are words. Inside a
    call they stay: some families' arguments are made of them. So do those that a client waits for.
    """
    edges = {mode: "\n".join(edge.marker for edge in row) for mode, row in grammar.edges.items()}
    anywhere, stops = "\n".join(edges.values()), "\n".join(stop_sequences)

    def silent(mode: Mode) -> frozenset[int]:
        return frozenset(
            token.id
            for token in _control_tokens(tokenizer)
            # Markers of several tokens may begin in one mode and end in another.
            if token.text not in (anywhere if token.special else edges[mode])
            and token.text not in stops
        )

    return {mode: silent(mode) for mode in edges if mode is not Mode.CALL}


@dataclass(frozen=True)
class _ControlToken:
    id: int
    text: str
    special: bool


@functools.lru_cache(maxsize=4)
def _control_tokens(tokenizer: TokenizerWrapper) -> Sequence[_ControlToken]:
    """Tokens of their own that are special, or markup of the template.

    Not all added tokens are: some tokenizers have added blanks, or the tags of web pages.
    """
    template = f"{tokenizer.chat_template}\n{tokenizer.tool_call_start}\n{tokenizer.tool_call_end}"
    template += f"\n{tokenizer.think_start}\n{tokenizer.think_end}"
    return [
        _ControlToken(int(token_id), token.content, bool(token.special))
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special or (_MARKUP.fullmatch(token.content) and token.content in template)
    ]


def _add_calls(
    edges: dict[Mode, list[Edge]], tokenizer: TokenizerWrapper, tool_names: Sequence[str]
) -> None:
    start, end = tokenizer.tool_call_start, tokenizer.tool_call_end
    opening = [Edge(start, Mode.CALL)]
    # Qwen3-Coder often leaves `<tool_call>` out; only names it was offered open a call then.
    if parser_family(tokenizer) == "qwen3_coder":
        opening += [Edge(f"<function={name}>", Mode.CALL, kept=True) for name in tool_names]
    routed = any(edge.to is Mode.CALL for row in edges.values() for edge in row)
    if not routed:
        edges[Mode.TEXT] += opening
    if Mode.THINKING in edges:
        edges[Mode.THINKING] += opening
    edges[Mode.CALL] = [Edge(end, Mode.TEXT)] if end else []


def _without_calls(edges: Mapping[Mode, Sequence[Edge]]) -> dict[Mode, list[Edge]]:
    return {mode: [edge for edge in row if edge.to is not Mode.CALL] for mode, row in edges.items()}


def _initial(
    tokenizer: TokenizerWrapper, edges: Mapping[Mode, Sequence[Edge]], in_thinking: bool
) -> Mode:
    if tokenizer.response_initial_state:
        return Mode(tokenizer.response_initial_state)
    return Mode.THINKING if in_thinking and Mode.THINKING in edges else Mode.TEXT
