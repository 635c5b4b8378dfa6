"""Keeps answers in later prompts in exactly the tokens that the model wrote.

When a client sends an answer back, the template may render it in other tokens: JSON with other
spaces, keys in another order, thinking left out. The prompt then differs from the cached tokens at
the answer. With splicing, a prompt begins with the tokens of the previous prompt and its answer,
and continues after that answer with the tokens that the template renders.

Invariants:
- An answer is spliced only if all messages up to it are equal, by digests of their exact bytes in
  the template's dialect, to those that were answered, and the answer is equal to what was sent.
- The tokens after the last spliced answer are exactly those that the template renders.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from anyclaude.mlx.prompt.cuts import Cut
from anyclaude.mlx.prompt.kept_answers import AnswerEnd, KeptAnswers
from anyclaude.mlx.prompt.pieces import Encoded
from anyclaude.mlx.prompt.render_cache import Entry, RenderCache
from anyclaude.mlx.prompt.stored_folder import StoredFolder
from anyclaude.mlx.tokens import TokenArray

# The bytes limit the answers before their number does.
_MAX_CONVERSATIONS: Final = 512


@dataclass(frozen=True, eq=False)
class AnswerPosition:
    """A prompt, and the position that its answer will have in later prompts."""

    token_ids: TokenArray
    cut_points: tuple[int, ...]
    # The digest of what all conversations with the same tools and instructions share.
    start: bytes
    # The digests of the messages.
    items: list[bytes]
    # The spliced answers that the prompt contains.
    answers: tuple[AnswerEnd, ...]
    # As in `AnswerEnd`, for the answer to come.
    ends: int
    header: str


class SplicedTurns:
    """The kept answers of all conversations. Safe to share between threads."""

    def __init__(
        self,
        limit_bytes: int,
        openers: Collection[int] = (),
        stored: StoredFolder | None = None,
        *,
        in_parts: bool = False,
        think_start: str = "",
    ) -> None:
        """`openers` are the tokens that begin a turn and end none.

        The bytes limit the answers in memory, and again on disk; with `stored`, they survive a
        restart. With `in_parts`, the template writes one answer as several messages. With
        `think_start`, it may open the thinking behind the header of an answer.
        """
        self._think_start = think_start
        self._in_parts = in_parts
        self._openers = openers
        self._stored = stored
        self._cache: RenderCache[KeptAnswers] = RenderCache(limit_bytes, _MAX_CONVERSATIONS)

    def restore(self, name: str, content: bytes) -> None:
        """Keeps what an earlier process stored.

        Raises:
            ValueError: it is not what this class writes, or has another name.
        """
        kept = KeptAnswers.from_bytes(content)
        if name != kept.name:
            raise ValueError("it has the name of another conversation")
        if self._stored is not None:
            self._stored.adopt(name, kept)
        self._add(kept)

    def forget(self, is_unwanted: Callable[[KeptAnswers], bool]) -> None:
        """Removes conversations, from disk too."""
        removed = self._cache.remove(is_unwanted)
        if self._stored is not None:
            self._stored.update({}, drop=[kept.name for kept in removed])

    def _add(self, kept: KeptAnswers) -> list[str]:
        """Keeps a conversation; returns the names of those that it continues or displaces."""
        entry = Entry(kept.start, kept.items, kept, kept.nbytes)
        return [removed.name for removed in self._cache.add(entry)]

    def position(
        self,
        start: bytes,
        items: list[bytes],
        roles: Sequence[str],
        encoded: Encoded,
        cuts: Sequence[Cut],
        cut_points: tuple[int, ...],
        stable_tokens: int,
    ) -> AnswerPosition:
        """The prompt, spliced as far as its answers were kept.

        `items` are the digests of its messages, `roles` say who wrote them, and `cuts` are all
        their ends in `encoded`; the cut points and the stable tokens are those of the prompt
        without splicing.
        """
        header = self._header(encoded.text[cuts[-1].characters :]) if cuts else ""
        ends = len(self._turn_ends(encoded, cuts, header))
        rendered = AnswerPosition(
            encoded.token_ids, cut_points, start, items, answers=(), ends=ends, header=header
        )
        common, entry = self._cache.find(start, items)
        if entry is None:
            return rendered
        computed = entry.value
        answers = tuple(answer for answer in computed.answers if answer.messages <= common)
        # The template may have written another date into the instructions.
        stable = encoded.token_ids[:stable_tokens]
        if not answers or not np.array_equal(computed.token_ids[:stable_tokens], stable):
            return rendered
        last = answers[-1]
        if roles[last.messages] == "assistant":
            # Where the answer ends could not be told from where that message ends.
            return rendered
        rendered_end = self._rendered_end(last, computed, encoded, cuts)
        if rendered_end is None:
            return rendered
        shift = last.tokens - rendered_end
        kept = (cut for cut in computed.cut_points if cut <= last.tokens)
        moved = (cut + shift for cut in cut_points if cut > rendered_end)
        tokens = computed.token_ids[: last.tokens]
        if last.is_closed:
            # Some models end an answer with another token than their template does later (gpt-oss).
            tokens = np.append(tokens[:-1], encoded.token_ids[rendered_end - 1])
        rest = encoded.token_ids[rendered_end:]
        return replace(
            rendered,
            token_ids=np.concatenate([tokens, rest]),
            cut_points=(*kept, *moved),
            answers=answers,
        )

    def keep(self, position: AnswerPosition, generated: TokenArray, answer: list[bytes]) -> None:
        """Keeps an answer, whose last token ends it.

        `answer` are the digests of the messages that the dialect makes of it, as the client will
        send it back.
        """
        if not position.ends:
            # The answer could not be found in a later rendering.
            return
        is_closed = int(generated[-1]) not in self._openers
        if not is_closed:
            generated = generated[:-1]
        token_ids = np.concatenate([position.token_ids, generated])
        items = [*position.items, *answer]
        end = AnswerEnd(
            len(items), position.ends, position.header, len(token_ids), is_closed, len(answer)
        )
        kept = KeptAnswers(
            position.start, items, token_ids, position.cut_points, (*position.answers, end)
        )
        displaced = self._add(kept)
        if self._stored is not None:
            self._stored.update({kept.name: kept}, drop=displaced)

    def _rendered_end(
        self, answer: AnswerEnd, computed: KeptAnswers, encoded: Encoded, cuts: Sequence[Cut]
    ) -> int | None:
        """The token offset at which the answer ends in `encoded`; None if it is not found."""
        turns = self._turn_ends(encoded, cuts, answer.header)
        if not 0 < answer.ends <= len(turns):
            return None
        begins = turns[answer.ends - 1]
        first = cuts[begins]
        if not encoded.text.startswith(answer.header, first.characters):
            return None
        end = begins + answer.parts
        while end < len(cuts) and self._continues(encoded, cuts[end], answer.header):
            end += 1
        if end >= len(cuts):
            return None
        last = cuts[end]
        if not answer.is_closed:
            return last.tokens if self._opens_at(encoded, last.tokens) else None
        rendered = encoded.token_ids[first.tokens : last.tokens]
        ends = np.flatnonzero(rendered == computed.token_ids[answer.tokens - 1])
        if len(ends):
            return first.tokens + int(ends[-1]) + 1
        closed = _closed_at(encoded, last)
        if closed and encoded.token_ids[closed - 1] != computed.token_ids[answer.tokens - 2]:
            return closed
        return None

    def _turn_ends(self, encoded: Encoded, cuts: Sequence[Cut], header: str) -> list[int]:
        """The indexes in `cuts` of the ends of turns.

        gpt-oss writes each thought, each text and each call of an answer as a message with a header
        of its own, and leaves out thoughts later. So messages with the header of answers that
        follow one another count as one turn.
        """
        begins = [self._continues(encoded, cut, header) for cut in cuts]
        return [n for n in range(len(cuts)) if not (n and begins[n - 1] and begins[n])]

    def _continues(self, encoded: Encoded, cut: Cut, header: str) -> bool:
        """Whether a message with the header of answers begins at the cut, and may continue one."""
        return self._in_parts and encoded.text.startswith(header, cut.characters)

    def _header(self, text: str) -> str:
        """The header at the end of a prompt, without what opens the thinking.

        The template may leave out that part when it writes the answer into a later prompt.
        """
        line = text[: text.find("\n") + 1] or text
        return (line.partition(self._think_start)[0] if self._think_start else "") or line

    def _opens_at(self, encoded: Encoded, token: int) -> bool:
        return token < len(encoded.token_ids) and int(encoded.token_ids[token]) in self._openers


def _closed_at(encoded: Encoded, end: Cut) -> int:
    """The token offset behind the control token with which the template ends a turn; 0 if none."""
    piece = bisect_left(encoded.offsets, end.characters) - 1
    if encoded.pieces[piece].isspace():
        piece -= 1
    return encoded.starts[piece] + 1 if piece % 2 else 0
