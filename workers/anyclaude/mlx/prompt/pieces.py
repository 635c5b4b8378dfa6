"""Rendered text to token ids, piece by piece, each piece once.

A tokenizer never merges across an added token, so encoding the text between control tokens apart
gives the ids of encoding all at once. A conversation that has grown by a turn costs that turn:
pieces that an earlier text had are not even looked up.
"""

import sys
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np

from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.prompt.compare import shared_characters
from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.tokens import TokenArray, token_array

_CACHE_BYTES: Final = 64 * 1024 * 1024
# What an entry costs beside its text and ids.
_ENTRY_BYTES: Final = 256


@dataclass(frozen=True, eq=False)
class Encoded:
    text: str
    token_ids: TokenArray
    # Text and control token in turn, as `ControlTokens.split` gives them.
    pieces: list[str]
    # Character offset of each piece's start, then the number of characters.
    offsets: list[int]
    # Token offset of each piece's start, then the number of tokens.
    starts: list[int]
    # How many of the pieces are those of the text encoded before; the next is a control token.
    kept_pieces: int


class PieceEncoder:
    """Encodes with one tokenizer; safe to share between threads as far as the tokenizer is."""

    def __init__(
        self,
        tokenizer: TokenizerWrapper,
        control: ControlTokens,
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        added = tokenizer.added_tokens_decoder
        ids = {token.content: token_id for token_id, token in added.items()}
        self._tokenizer = tokenizer
        self._control = control
        self._control_ids = {text: token_array([ids[text]]) for text in control.texts}
        self._longest_control = max(map(len, control.texts), default=0)
        # The unknown token is what a tokenizer says of text that it cannot write.
        self._forbidden = frozenset(ids[text] for text in control.texts) - {tokenizer.unk_token_id}
        self._cache = _PieceCache(cache_bytes)
        self._anchor = self._find_anchor(ids)

    def _find_anchor(self, ids: dict[str, int]) -> str:
        """A control token to encode text behind, if the tokenizer treats a text's start apart.

        Some put a space before the first word of a text, but not behind an added token.
        """
        for text in sorted(self._control.texts):
            behind = self._encode(f"{text}a")
            if behind[0] == ids[text] and behind[1:] != self._encode("a"):
                return text
            if behind[0] == ids[text]:
                return ""
        return ""

    def encode(self, rendered: str, before: Encoded | None = None) -> Encoded:
        """Token ids of a rendered prompt, content encoded as content.

        Args:
            before: another text's; what it begins with alike is taken from there.
        """
        kept = _kept_pieces(before, rendered, self._longest_control) if before else 0
        if before is None or not kept:
            return self._joined(rendered, None, 0, self._control.split(rendered))
        # The first of the new pieces is a control token: no text stands before it.
        _, *new = self._control.split(rendered[before.offsets[kept] :])
        return self._joined(rendered, before, kept, new)

    def _joined(self, text: str, before: Encoded | None, kept: int, new: list[str]) -> Encoded:
        ids = [
            self._control_id(piece) if index % 2 else self._text_ids(piece, first=index == 0)
            for index, piece in enumerate(new, kept)
        ]
        known = before or _NOTHING
        offsets = accumulate(map(len, new), initial=known.offsets[kept])
        starts = accumulate(map(len, ids), initial=known.starts[kept])
        return Encoded(
            text,
            np.concatenate([known.token_ids[: known.starts[kept]], *ids]),
            [*known.pieces[:kept], *new],
            [*known.offsets[:kept], *offsets],
            [*known.starts[:kept], *starts],
            kept,
        )

    def _control_id(self, piece: str) -> TokenArray:
        # Found as it stands, unless it swallowed whitespace.
        found = self._control_ids.get(piece)
        return self._control_ids[piece.strip()] if found is None else found

    def _text_ids(self, piece: str, first: bool) -> TokenArray:
        if first and self._anchor:
            return self._encode_pieces(piece, self._encode)
        return self._cache.get(piece, lambda: self._encode_pieces(piece, self._encode_behind))

    def _encode_pieces(self, piece: str, head: Callable[[str], list[int]]) -> TokenArray:
        """Encode one piece, cut where it spells a control token."""
        first, *rest = self._control.reveal(piece)
        ids = self._apart(first, head)
        for part in rest:
            ids += self._apart(part, self._encode_behind)
        return token_array(ids)

    def _apart(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Encode, halving what a tokenizer's own rewriting would turn into a control token."""
        ids = encode(text) if text else []
        if len(text) < 2 or self._forbidden.isdisjoint(ids):
            return ids
        middle = len(text) // 2
        return self._apart(text[:middle], encode) + self._apart(text[middle:], self._encode_behind)

    def _encode_behind(self, text: str) -> list[int]:
        if not self._anchor:
            return self._encode(text)
        return self._encode(self._anchor + text)[1:]

    def _encode(self, text: str) -> list[int]:
        # Not verbose: the length is ours to judge.
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids


_NOTHING: Final = Encoded("", token_array([]), [], [0], [0], 0)


def _kept_pieces(before: Encoded, text: str, longest_control: int) -> int:
    """How many pieces `text` certainly has in common with `before`: those up to a control token.

    Where splitting looked at no character that differs: past the last of them, by the length of the
    longest control token. The token there is found again, with the whitespace it now swallows.
    """
    alike = shared_characters(before.text, text)
    place = bisect_right(before.offsets, alike - longest_control, hi=len(before.pieces)) - 1
    return max(0, place - (place + 1) % 2)


class _PieceCache:
    """Ids by text, bounded in bytes, the least recently used going first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._ids: OrderedDict[str, TokenArray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str, make: Callable[[], TokenArray]) -> TokenArray:
        with self._lock:
            ids = self._ids.get(text)
            if ids is not None:
                self._ids.move_to_end(text)
                return ids
        made = make()
        with self._lock:
            self._keep(text, made)
        return made

    def _keep(self, text: str, ids: TokenArray) -> None:
        if text in self._ids:
            return
        self._ids[text] = ids
        self._bytes += _cost_bytes(text, ids)
        while self._bytes > self._limit_bytes:
            self._bytes -= _cost_bytes(*self._ids.popitem(last=False))


def _cost_bytes(text: str, ids: TokenArray) -> int:
    return sys.getsizeof(text) + sys.getsizeof(ids) + _ENTRY_BYTES
