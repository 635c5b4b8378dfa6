"""Content codings of answers (RFC 9110, section 8.4.1), which no request here asks for.

A body is decoded in bounded pieces, however much it holds.
"""

import zlib
from typing import Final, Protocol

_MAX_PIECE_BYTES: Final = 1024 * 1024
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
# The low half of the first byte of a zlib stream (RFC 1950, section 2.2).
_ZLIB_METHOD: Final = 8


class _Inflater(Protocol):
    """What zlib.decompressobj makes, whose class has no public name."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Inflating:
    """Decodes gzip and deflate."""

    def __init__(self, coding: str) -> None:
        self._is_gzip = coding in ("gzip", "x-gzip")
        self._inflater: _Inflater | None = None
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """More of what was received; only once `take` has nothing more."""
        self._rest = data

    def take(self) -> bytes:
        """The next decoded piece; empty when more must be fed.

        Raises:
            zlib.error: it is in no such coding.
        """
        while self._rest:
            if self._inflater is None or self._inflater.eof:
                # Another member of gzip may follow.
                self._inflater = self._begin(self._rest[0])
            piece = self._inflater.decompress(self._rest, _MAX_PIECE_BYTES)
            self._rest = self._inflater.unconsumed_tail or self._inflater.unused_data
            if piece:
                return piece
        return b""

    def finish(self) -> None:
        """
        Raises:
            zlib.error: the end is missing.
        """
        if self._inflater is not None and not self._inflater.eof:
            raise zlib.error("incomplete")

    def _begin(self, first: int) -> _Inflater:
        if self._is_gzip:
            return zlib.decompressobj(_GZIP_WINDOW)
        # Many leave the zlib format out that deflate is defined to have.
        is_raw = first & 0x0F != _ZLIB_METHOD
        return zlib.decompressobj(-zlib.MAX_WBITS if is_raw else zlib.MAX_WBITS)


def inflating(coding: str) -> Inflating | None:
    """What decodes `coding`; None for any other, which is passed on as it is."""
    name = coding.strip().lower()
    return Inflating(name) if name in ("gzip", "x-gzip", "deflate") else None
