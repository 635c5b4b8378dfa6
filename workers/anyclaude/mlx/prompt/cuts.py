"""Finds the cut points of a prompt: the ends of its messages and of its stable prefix.

A template opens or closes each turn with a control token. Which ones these are is learned once, by
rendering a conversation and its beginnings: a turn ends where a beginning ends. In a prompt every
such token was written by the template, so the tokens show where turns end. Since text is encoded
between control tokens, every cut point is also the end of a token.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.prompt.pieces import Encoded


@dataclass(frozen=True)
class Cut:
    """A cut point, as an offset in the rendered text and in its tokens."""

    characters: int
    tokens: int


@dataclass(frozen=True)
class TurnTokens:
    # Control tokens that begin a turn.
    openers: frozenset[str]
    # Control tokens that end a turn.
    closers: frozenset[str]

    def cuts(self, encoded: Encoded, before: Sequence[Cut] = ()) -> list[Cut]:
        """The ends of all messages in order, including the end of the prompt if it is one.

        `before` are those of the text from which `encoded` took its first pieces.
        """
        first = encoded.kept_pieces
        cuts = list(before[: bisect_right(before, encoded.offsets[first], key=_characters)])
        for index in self.ends(encoded.pieces, first):
            cut = Cut(encoded.offsets[index], encoded.starts[index])
            if not cuts or cut != cuts[-1]:
                cuts.append(cut)
        return cuts

    def ends(self, pieces: Sequence[str], first: int = 0) -> Iterator[int]:
        """The indexes of the pieces, from `first` on, before which a message has ended.

        Where there is no text between two control tokens, one place may have two indexes.
        """
        # Control tokens before the first text belong to the prompt and to no message.
        begun = any(pieces[:first:2])
        for index in range(first, len(pieces)):
            token = pieces[index].strip() if index % 2 else ""
            if token in self.openers and begun:
                yield index
            begun = begun or bool(pieces[index] and not token)
            if token in self.closers:
                yield index + 1


def learn_turns(
    control: ControlTokens, rendered: Iterable[tuple[str, str]], think_end: str | None = None
) -> TurnTokens:
    """Learns which tokens open and close turns, from rendered beginnings and the whole of each.

    A line end may stand before a token that opens a turn. `think_end` opens none: some templates
    write it behind a result, where the answer goes on without thinking.
    """
    openers: set[str] = set()
    closers: set[str] = set()
    for beginning, whole in rendered:
        if not whole.startswith(beginning):
            continue
        head, *after = control.split(whole[len(beginning) :])
        if not head and after:
            openers.add(after[0].strip())
        elif (before := control.split(beginning))[1:] and not before[-1]:
            closers.add(before[-2].strip())
        elif not head.strip() and after and after[0].strip() != think_end:
            openers.add(after[0].strip())
    return TurnTokens(frozenset(openers), frozenset(closers))


def last_cut(cuts: Sequence[Cut], encoded: Encoded, characters: int) -> int:
    """The tokens up to the last cut point within `characters`, or else to the last whole piece."""
    if cuts and cuts[0].characters <= characters:
        return cuts[bisect_right(cuts, characters, key=_characters) - 1].tokens
    piece = bisect_right(encoded.offsets, characters) - 1
    return encoded.starts[piece] if piece < len(encoded.pieces) else 0


def _characters(cut: Cut) -> int:
    return cut.characters
