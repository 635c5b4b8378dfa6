"""Encodes rendered text to token ids, piece by piece, and each piece only once.

A tokenizer never merges characters across an added token. So encoding the texts between control
tokens separately gives the same ids as encoding the whole text, and a conversation that has grown
by one turn costs only that turn.
"""

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np

from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.lru import LRUCache
from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.tokens import TokenArray, token_array

_CACHE_BYTES: Final = 64 * 1024 * 1024
# The memory of a cache entry besides its text and ids.
_ENTRY_BYTES: Final = 256


@dataclass(frozen=True, eq=False)
class Encoded:
    text: str
    token_ids: TokenArray
    # Text and control tokens in turn, as `ControlTokens.split` returns them.
    pieces: list[str]
    # The offset of each piece in characters, and at last the number of characters.
    offsets: list[int]
    # The offset of each piece in tokens, and at last the number of tokens.
    starts: list[int]
    # The number of pieces taken from the text encoded before; the next one is a control token.
    kept_pieces: int


class PieceEncoder:
    """Encodes with one tokenizer. Safe to share between threads if the tokenizer is."""

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
        # Content must not become a control token. The unknown token may come from any text.
        self._forbidden = frozenset(ids[text] for text in control.texts) - {tokenizer.unk_token_id}
        self._cache: LRUCache[str, TokenArray] = LRUCache(cache_bytes, _cost_bytes)
        self._anchor = self._find_anchor(ids)

    def _find_anchor(self, ids: dict[str, int]) -> str:
        """A control token to put before each text while it is encoded; empty if none is needed.

        Some tokenizers add a space at the start of a text, but not after an added token.
        """
        for text in sorted(self._control.texts):
            after = self._encode(f"{text}a")
            if after[0] == ids[text] and after[1:] != self._encode("a"):
                return text
            if after[0] == ids[text]:
                return ""
        return ""

    def control_ids(self, texts: Iterable[str]) -> frozenset[int]:
        """The ids of control tokens."""
        return frozenset(int(self._control_ids[text][0]) for text in texts)

    def encode(self, rendered: str, before: Encoded | None = None) -> Encoded:
        """Encodes a rendered prompt; content never becomes a control token.

        What it shares with the beginning of `before` is taken from there.
        """
        kept = _kept_pieces(before, rendered, self._longest_control) if before else 0
        if before is None or not kept:
            return self._joined(rendered, None, 0, self._control.split(rendered))
        # The first new piece is a control token, so `split` returns an empty text before it.
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
        # A piece that includes removed whitespace is not in the table as it is.
        found = self._control_ids.get(piece)
        return self._control_ids[piece.strip()] if found is None else found

    def _text_ids(self, piece: str, first: bool) -> TokenArray:
        if first and self._anchor:
            return self._encode_pieces(piece, self._encode)
        return self._cache.get_or_make(
            piece, lambda: self._encode_pieces(piece, self._encode_after_token)
        )

    def _encode_pieces(self, piece: str, head: Callable[[str], list[int]]) -> TokenArray:
        """Encodes one text piece, divided inside every control token that it contains."""
        first, *rest = self._control.reveal(piece)
        ids = self._encode_safely(first, head)
        for part in rest:
            ids += self._encode_safely(part, self._encode_after_token)
        return token_array(ids)

    def _encode_safely(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Encodes text; if the tokenizer's normalisation makes a control token of it, in halves."""
        ids = encode(text) if text else []
        if len(text) < 2 or self._forbidden.isdisjoint(ids):
            return ids
        middle = len(text) // 2
        return self._encode_safely(text[:middle], encode) + self._encode_safely(
            text[middle:], self._encode_after_token
        )

    def _encode_after_token(self, text: str) -> list[int]:
        if not self._anchor:
            return self._encode(text)
        return self._encode(self._anchor + text)[1:]

    def _encode(self, text: str) -> list[int]:
        # `verbose` would warn about long texts, but the length is checked elsewhere.
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids


_NOTHING: Final = Encoded("", token_array([]), [], [0], [0], 0)


def _kept_pieces(before: Encoded, text: str, longest_control: int) -> int:
    """The number of pieces that `text` certainly shares with `before`, up to a control token.

    A piece is shared if splitting it did not depend on a character that differs: it must begin
    before the first difference by at least the length of the longest control token. The control
    token after the last shared piece is split again, since the whitespace beside it may differ.
    """
    alike = shared_characters(before.text, text)
    place = bisect_right(before.offsets, alike - longest_control, hi=len(before.pieces)) - 1
    return max(0, place - (place + 1) % 2)


def _cost_bytes(text: str, ids: TokenArray) -> int:
    return sys.getsizeof(text) + sys.getsizeof(ids) + _ENTRY_BYTES


def shared_characters(first: str, second: str) -> int:
    """The length of the common beginning of two texts, by bisection: comparing slices is fast."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
