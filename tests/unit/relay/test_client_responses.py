"""Responses byte by byte: which are complete, and how much of one is buffered."""

import asyncio
import gzip
import zlib

import brotli
import pytest
from backports import zstd

from anyclaude.relay.failures import UpstreamFault
from tests.jumping_loop import JumpingLoop, run
from tests.unit.relay.byte_server import (
    CHUNKED,
    OK,
    UNTIL_CLOSE,
    Peer,
    answering,
    once,
    serving,
)
from tests.waiting import until_still

pytestmark = pytest.mark.anyio


async def reads(*pieces: bytes, method: str = "GET") -> tuple[int, bytes, str]:
    """Reads a response until the server closes; returns status, body and error."""
    status, body = 0, b""
    async with serving(once(*pieces)) as stage:
        try:
            async with stage.client.send(method, "/", []) as response:
                status = response.status
                while piece := await response.next():
                    body += piece
        except UpstreamFault as fault:
            return status, body, fault.message
    return status, body, ""


async def fails(*pieces: bytes) -> bytes:
    """Returns what was read before the response turned out to be broken."""
    _, body, words = await reads(*pieces)
    assert "broke" in words
    return body


async def test_chunks_cut_anywhere():
    """A chunked body is read byte by byte, with extensions and trailers."""
    stream = CHUNKED + b"3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nT: 1\r\n\r\n"

    async def turn(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.send_bytewise(stream)

    async with serving(turn) as stage:
        for _ in range(2):
            async with stage.client.send("GET", "/", []) as response:
                assert await response.read() == b"abc0123456789"
                assert response.headers.raw == [(b"Transfer-Encoding", b"chunked")]
        assert stage.made == 1


async def test_the_end_can_be_read_again():
    """After the end, reading returns empty bytes."""
    async with (
        serving(answering(CHUNKED, b"3\r\nabc\r\n", b"0\r\n\r\n")) as stage,
        stage.client.send("GET", "/", []) as response,
    ):
        assert [await response.next() for _ in range(3)] == [b"abc", b"", b""]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_until_the_end(version):
    """A body without a length ends when the server closes the connection in order."""
    assert await reads(UNTIL_CLOSE.replace(b"1.1", version), b"abc") == (200, b"abc", "")


async def test_a_reset_is_no_end():
    """A reset during a body without a length is an error."""
    is_read = asyncio.Event()

    async def turn(peer: Peer) -> None:
        await peer.answer(UNTIL_CLOSE, b"abc")
        await is_read.wait()
        peer.reset()

    async with (
        serving(turn) as stage,
        stage.client.send("GET", "/", []) as response,
    ):
        assert await response.next() == b"abc"
        is_read.set()
        with pytest.raises(UpstreamFault, match="broke"):
            await response.next()


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"abc"], id="length"),
        pytest.param([CHUNKED, b"3\r\nabc\r\n"], id="no last chunk"),
        pytest.param([CHUNKED, b"5\r\nabc"], id="half a chunk"),
        pytest.param([CHUNKED, b"3\r\nabcXX0\r\n"], id="no chunk"),
    ],
)
async def test_a_body_cut_off(pieces):
    """The bytes before the cut are returned, and then an error instead of the end."""
    assert await fails(*pieces) == b"abc"


@pytest.mark.parametrize(
    "piece",
    [
        b"",
        b"HTTP/1.1",
        b"hello\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 110_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 257 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
    ],
    ids=["nothing", "cut", "no HTTP", "101", "large", "endless", "many", "1xx for ever"],
)
async def test_an_unusable_head(piece):
    """An invalid head counts as a broken connection and is not read further."""
    assert await fails(piece) == b""


async def test_a_large_head_is_read():
    """Many headers are accepted."""
    lines = b"".join(b"x-%d: %s\r\n" % (n, b"y" * 200) for n in range(250))
    assert await reads(OK.replace(b"Content", lines + b"Content", 1)) == (200, b"hi", "")


async def test_informational_responses_are_skipped():
    """100 and 103 are skipped, and their headers do not become the response's."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
    async with serving(answering(early, OK)) as stage:
        for _ in range(2):
            async with stage.client.send("GET", "/", []) as response:
                assert response.headers.raw == [(b"Content-Length", b"2")]
                assert await response.read() == b"hi"
        assert stage.made == 1


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", CHUNKED),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    ],
)
async def test_responses_without_a_body(method, head):
    """A response that cannot have a body ends after its head, whatever length it declares."""
    async with serving(answering(head)) as stage:
        assert await stage.body(method) == b""


async def test_headers_are_found_in_any_case():
    """Lookup ignores case and returns repeated headers; the raw headers are unchanged."""
    head = b"HTTP/1.1 200 OK\r\nX-Two: a\r\nx-tWo: \xe9\r\n"
    async with (
        serving(answering(OK.replace(b"HTTP/1.1 200 OK\r\n", head))) as stage,
        stage.client.send("GET", "/", []) as response,
    ):
        assert response.headers["x-two"] == "a, \xe9"
        assert response.headers.get("nothing") is None
        assert response.headers.raw[:2] == [(b"X-Two", b"a"), (b"x-tWo", b"\xe9")]
        await response.read()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


WORDS = b"words " * 100


RAW_DEFLATE = (b"deflate", raw_deflate(WORDS), WORDS)
CODED = [
    (b"gzip", gzip.compress(WORDS, mtime=0), WORDS),
    (b"deflate", zlib.compress(WORDS), WORDS),
    (b"br", brotli.compress(WORDS), WORDS),
    (b"zstd", zstd.compress(WORDS), WORDS),
    (b"GZip", gzip.compress(WORDS, mtime=0), WORDS),
    (b"gzip", b"", b""),
    (b"gzip", b"no gzip", None),
    (b"br", b"no brotli", None),
    (b"zstd", b"no zstd", None),
    (b"odd", b"as it is", b"as it is"),
]


@pytest.mark.parametrize(
    ("coding", "coded", "expected", "is_bytewise"),
    # Whether deflate is raw shows in its first two bytes, so those must come together.
    [(*case, False) for case in (*CODED, RAW_DEFLATE)] + [(*case, True) for case in CODED],
)
async def test_codings(coding, coded, expected, is_bytewise):
    """Bodies are decoded however they are cut, or returned as received if the caller wants that."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"

    async def turn(peer: Peer) -> None:
        while True:
            await peer.answer(head % (coding, len(coded)))
            if is_bytewise:
                await peer.send_bytewise(coded)
            else:
                await peer.send(coded)

    async with serving(turn) as stage:
        assert await stage.body(decompress=False) == coded
        if expected is None:
            with pytest.raises(UpstreamFault, match="broke"):
                await stage.body()
        else:
            assert await stage.body() == expected


@pytest.mark.parametrize(
    ("coding", "compress"),
    [(b"gzip", gzip.compress), (b"br", brotli.compress), (b"zstd", zstd.compress)],
)
async def test_a_decoded_body_comes_in_bounded_pieces(coding, compress):
    """A small body that decodes to a large one is decoded in bounded pieces."""
    coded = compress(bytes(50_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
    size = 0
    async with (
        serving(answering(head % (coding, len(coded)), coded)) as stage,
        stage.client.send("GET", "/", []) as response,
    ):
        while piece := await response.next():
            assert len(piece) <= 2 * 1024 * 1024
            size += len(piece)
    assert size == 50_000_000


async def test_a_server_waits_for_a_slow_reader():
    """Only a bounded part of a response is buffered, and all of it can be read later."""
    size = 50_000_000
    sent: list[int] = []

    async def turn(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(500):
            await peer.send(b"x" * (size // 500))
            sent.append(size // 500)
        await peer.answer(OK)

    async with serving(turn) as stage:
        async with stage.client.send("GET", "/", []) as response:
            await until_still(lambda: len(sent))
            # The kernel's buffers take a few megabytes.
            assert sum(sent) < size // 2
            first = await response.next()
            assert len(first) < 1024 * 1024
            assert len(first) + len(await response.read()) == size
        assert await stage.body() == b"hi"
        assert stage.made == 1


async def test_a_server_that_sends_nothing():
    """A request fails after the longest allowed silence, before and after the head."""

    async def before(peer: Peer) -> bytes:
        await peer.head()
        return await peer.reader.read()

    async def after(peer: Peer) -> None:
        await peer.answer(UNTIL_CLOSE, b"abc")
        await peer.reader.read()

    async with serving(before, after, idle_timeout_seconds=0.05) as stage:
        with pytest.raises(UpstreamFault, match="did not begin") as error:
            await stage.body(patience_seconds=0.05)
        assert error.value.status == 504
        async with stage.client.send("GET", "/", []) as response:
            response.begun = True
            assert await response.next() == b"abc"
            with pytest.raises(UpstreamFault, match="in the middle"):
                await response.next()


def test_a_server_is_waited_for_after_the_machine_slept():
    """The clock jumps by an hour before the head and within the body; the response is read."""

    async def work(loop: JumpingLoop) -> None:
        async def turn(peer: Peer) -> None:
            await peer.head()
            await loop.sleep_through(3600.0)
            await asyncio.sleep(0.01)
            await peer.send(CHUNKED, b"2\r\nhi\r\n")
            await read_once.wait()
            await loop.sleep_through(3600.0)
            await asyncio.sleep(0.01)
            await peer.send(b"0\r\n\r\n")

        read_once = asyncio.Event()
        async with (
            serving(turn, patience_seconds=100_000) as stage,
            stage.client.send("GET", "/", []) as response,
        ):
            assert await response.next() == b"hi"
            response.begun = True
            read_once.set()
            assert await response.next() == b""
            assert response.is_complete

    run(work)
