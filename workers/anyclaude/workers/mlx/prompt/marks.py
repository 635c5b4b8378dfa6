"""Where a prompt may be cut: the ends of its messages and of what new conversations share.

A template opens or closes each turn with a control token. Which ones is learned once, by
rendering a conversation and its beginnings: where a beginning ends, a turn ends. In a prompt
every such token is the template's own, so finding them is finding the turns; and since text
is encoded between control tokens, every mark is a place where tokens end too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from anyclaude.workers.mlx.prompt.control import ControlTokens
from anyclaude.workers.mlx.prompt.pieces import Encoded


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

    def cuts(self, encoded: Encoded) -> list[Cut]:
        """The ends of messages within the prompt, in order, its very end left out."""
        found = (cut for cut in self._found(encoded) if cut.tokens < encoded.starts[-1])
        return list(dict.fromkeys(found))

    def _found(self, encoded: Encoded) -> Iterator[Cut]:
        characters = 0
        # Before the first text stand at most a prompt's own control tokens: no message yet.
        begun = False
        for index, piece in enumerate(encoded.pieces):
            token = piece.strip() if index % 2 else ""
            if token in self.openers and begun:
                yield Cut(characters, encoded.starts[index])
            characters += len(piece)
            begun = begun or bool(piece and not token)
            if token in self.closers:
                yield Cut(characters, encoded.starts[index + 1])


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


def shared_characters(first: str, second: str) -> int:
    """The length of what two texts begin with alike, by halving: comparing slices is fast."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def last_cut(cuts: Sequence[Cut], encoded: Encoded, characters: int) -> int:
    """Tokens up to the last message end within `characters`, else up to the last piece's end."""
    ends = [cut.tokens for cut in cuts if cut.characters <= characters]
    if ends:
        return ends[-1]
    length = 0
    for index, piece in enumerate(encoded.pieces):
        length += len(piece)
        if length > characters:
            return encoded.starts[index]
    return 0
