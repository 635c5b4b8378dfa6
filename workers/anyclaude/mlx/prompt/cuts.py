"""Where a prompt may be cut: the ends of its messages and of what new conversations share.

A template opens or closes each turn with a control token. Which ones is learned once, by
rendering a conversation and its beginnings: where a beginning ends, a turn ends. In a prompt
every such token is the template's own, so finding them is finding the turns; and since text
is encoded between control tokens, every mark is a place where tokens end too.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.prompt.pieces import Encoded


@dataclass(frozen=True)
class Cut:
    """One place in the rendered text and in its tokens."""

    characters: int
    tokens: int


@dataclass(frozen=True)
class TurnTokens:
    # Control tokens before which a message has ended.
    openers: frozenset[str]
    # Control tokens after which a message has ended.
    closers: frozenset[str]

    def cuts(self, encoded: Encoded, before: Sequence[Cut] = ()) -> list[Cut]:
        """The ends of messages, in order, that of the prompt included if a message ends there.

        Args:
            before: those of the text that `encoded` took its first pieces from.
        """
        first = encoded.kept_pieces
        cuts = list(before[: bisect_right(before, encoded.offsets[first], key=_characters)])
        for index in self.ends(encoded.pieces, first):
            cut = Cut(encoded.offsets[index], encoded.starts[index])
            if not cuts or cut != cuts[-1]:
                cuts.append(cut)
        return cuts

    def ends(self, pieces: Sequence[str], first: int = 0) -> Iterator[int]:
        """The pieces before which a message has ended, from piece `first` on.

        Where text is empty, a place may be named twice.
        """
        # Before the first text stand at most a prompt's own control tokens: no message yet.
        begun = any(pieces[:first:2])
        for index in range(first, len(pieces)):
            token = pieces[index].strip() if index % 2 else ""
            if token in self.openers and begun:
                yield index
            begun = begun or bool(pieces[index] and not token)
            if token in self.closers:
                yield index + 1


def learn_turns(control: ControlTokens, rendered: Iterable[tuple[str, str]]) -> TurnTokens:
    """Learn a template's turn tokens from beginnings of conversations and their wholes."""
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
    return TurnTokens(frozenset(openers), frozenset(closers))


def last_cut(cuts: Sequence[Cut], encoded: Encoded, characters: int) -> int:
    """Tokens up to the last message end within `characters`, else up to the last piece's end."""
    if cuts and cuts[0].characters <= characters:
        return cuts[bisect_right(cuts, characters, key=_characters) - 1].tokens
    piece = bisect_right(encoded.offsets, characters) - 1
    return encoded.starts[piece] if piece < len(encoded.pieces) else 0


def _characters(cut: Cut) -> int:
    return cut.characters
