"""Request bodies that a client compressed."""

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
from backports import zstd

from anyclaude.messages.errors import ApiError
from anyclaude.proxy.content_coding import codings_of, decode

BODY = b'{"messages": [{"role": "user", "content": "hello"}]}' * 50_000
LIMIT_BYTES = 4 * 1024 * 1024


def _raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip under its old name": ("X-GZIP", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without a header": ("deflate", _raw_deflate),
    "brotli": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
    "two codings": ("gzip, br", lambda body: brotli.compress(gzip.compress(body))),
}


@pytest.fixture(params=PACKED.values(), ids=PACKED.keys())
def packed(request: pytest.FixtureRequest) -> tuple[str, Callable[[bytes], bytes]]:
    value: tuple[str, Callable[[bytes], bytes]] = request.param
    return value


def test_every_coding_is_undone(packed: tuple[str, Callable[[bytes], bytes]]) -> None:
    """The body arrives as it was before the client compressed it, an empty one too."""
    header, pack = packed
    for body in (BODY, b"{}", b""):
        assert decode(pack(body), codings_of(header), LIMIT_BYTES) == body


def test_expansion_is_bounded(packed: tuple[str, Callable[[bytes], bytes]]) -> None:
    """A body that expands beyond the limit is refused, however small it arrives."""
    header, pack = packed
    with pytest.raises(ApiError) as caught:
        decode(pack(bytes(LIMIT_BYTES + 1)), codings_of(header), LIMIT_BYTES)
    assert caught.value.status == 413


@pytest.mark.parametrize("damage", ["cut", "more", "other", "nothing"])
def test_damaged_bodies_are_refused(
    packed: tuple[str, Callable[[bytes], bytes]], damage: str
) -> None:
    """A body that is cut, or is not in its coding, is a 400 that names the coding."""
    header, pack = packed
    codings = codings_of(header)
    whole = pack(BODY)
    body = {"cut": whole[:-5], "more": whole + b"x", "other": b'{"a": 1}', "nothing": b""}[damage]
    with pytest.raises(ApiError, match="is not valid") as caught:
        decode(body, codings, LIMIT_BYTES)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "header", ["compress", "gzip, rot13", "gzip, gzip, gzip", "aes128gcm", "*"]
)
def test_unknown_codings_are_refused(header: str) -> None:
    """A coding that is not known is a 415 that lists the known ones."""
    with pytest.raises(ApiError, match="gzip, deflate, br, zstd") as caught:
        codings_of(header)
    assert caught.value.status == 415
