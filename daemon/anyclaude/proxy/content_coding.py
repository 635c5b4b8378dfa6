"""Decodes request bodies that the client compressed (RFC 9110, section 8.4).

The result never exceeds a limit in bytes, and no more than the limit is ever expanded: a small body
may stand for gigabytes.
"""

import sys
import zlib
from collections.abc import Callable
from typing import Final, Protocol

import brotli

from anyclaude.messages.errors import ApiError, invalid_request

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# How much a decoder returns at a time.
_PIECE_BYTES: Final = 1024 * 1024
# zlib's window sizes that stand for a gzip header, a zlib header, and no header.
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
# The low half of the first byte of a zlib stream (RFC 1950, section 2.2).
_ZLIB_METHOD: Final = 8
# More than one is legal and unknown in practice; each multiplies what a small body may stand for.
_MAX_CODINGS: Final = 2


class _Decoder(Protocol):
    """Expands one coded body. The first call gets all of it, further calls get nothing."""

    def next(self, data: bytes) -> bytes: ...

    @property
    def is_complete(self) -> bool: ...


class _Zlib:
    def __init__(self, window: int) -> None:
        self._object = zlib.decompressobj(window)

    def next(self, data: bytes) -> bytes:
        return self._object.decompress(data or self._object.unconsumed_tail, _PIECE_BYTES)

    @property
    def is_complete(self) -> bool:
        return self._object.eof and not self._object.unused_data


class _Brotli:
    def __init__(self) -> None:
        self._object = brotli.Decompressor()

    def next(self, data: bytes) -> bytes:
        piece: bytes = self._object.process(data, output_buffer_limit=_PIECE_BYTES)
        return piece

    @property
    def is_complete(self) -> bool:
        return bool(self._object.is_finished())


class _Zstd:
    def __init__(self) -> None:
        self._object = zstd.ZstdDecompressor()

    def next(self, data: bytes) -> bytes:
        return b"" if self._object.eof else self._object.decompress(data, _PIECE_BYTES)

    @property
    def is_complete(self) -> bool:
        return self._object.eof and not self._object.unused_data


def _deflate(body: bytes) -> _Decoder:
    # Some clients leave out the header of zlib that the coding's definition asks for.
    return _Zlib(_ZLIB if body and body[0] & 0x0F == _ZLIB_METHOD else _RAW)


_DECODERS: Final[dict[str, Callable[[bytes], _Decoder]]] = {
    "gzip": lambda _: _Zlib(_GZIP),
    "x-gzip": lambda _: _Zlib(_GZIP),
    "deflate": _deflate,
    "br": lambda _: _Brotli(),
    "zstd": lambda _: _Zstd(),
}
ACCEPTED: Final = "gzip, deflate, br, zstd"


def codings_of(header: str) -> list[str]:
    """The codings of a Content-Encoding header in the order in which they were applied.

    Raises:
        ApiError: 415, one is unknown, or they are too many.
    """
    codings = [coding.strip().lower() for coding in header.split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    unknown = next((coding for coding in codings if coding not in _DECODERS), None)
    if unknown is not None or len(codings) > _MAX_CODINGS:
        what = "is unknown" if unknown is not None else "names too many codings"
        raise ApiError(
            415,
            f"The request's content-encoding {header!r} {what}. Accepted are {ACCEPTED}.",
            error_type="invalid_request_error",
        )
    return codings


def decode(body: bytes, codings: list[str], limit_bytes: int) -> bytes:
    """The body without its codings.

    Raises:
        ApiError: 413, it is larger than `limit_bytes`; 400, it is not in the coding that it claims.
    """
    for coding in reversed(codings):
        try:
            body = _expanded(_DECODERS[coding](body), body, limit_bytes)
        except (zlib.error, brotli.error, zstd.ZstdError, EOFError, ValueError):
            raise invalid_request(f"The request body is not valid {coding}.") from None
    return body


def _expanded(decoder: _Decoder, body: bytes, limit_bytes: int) -> bytes:
    pieces = []
    total = 0
    while piece := decoder.next(body):
        body = b""
        total += len(piece)
        if total > limit_bytes:
            raise too_large(limit_bytes)
        pieces.append(piece)
    if not decoder.is_complete:
        raise ValueError("cut")
    return b"".join(pieces)


def too_large(limit_bytes: int) -> ApiError:
    return ApiError(413, f"The request body is larger than the maximum of {limit_bytes} bytes.")
