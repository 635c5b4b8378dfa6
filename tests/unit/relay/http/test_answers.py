"""Answers of a server, byte by byte: what is a whole one, and how much of it is held."""

import asyncio
import gzip
import zlib

import pytest

from anyclaude.relay.failures import UpstreamFault
from anyclaude.relay.wire import Wire
from tests.unit.relay.http.server import (
    CHUNKED,
    OK,
    UNTIL_CLOSE,
    Peer,
    Stage,
    Staging,
    answered,
    answering,
    body_of,
    once,
)


def reads(staged: Staging, *pieces: bytes, method: str = "GET") -> tuple[int, bytes, str]:
    """What is read of an answer before the server hangs up: status, body, how it failed."""
    read = [0, b"", ""]

    async def test(wire: Wire, _: Stage) -> None:
        try:
            async with answered(wire, method, "/", []) as answer:
                read[0] = answer.status
                while piece := await answer.next():
                    read[1] += piece
        except UpstreamFault as fault:
            read[2] = fault.message

    staged(test, once(*pieces))
    return read[0], read[1], read[2]


def fails(staged: Staging, *pieces: bytes) -> bytes:
    """What was read before it was known to be broken."""
    _, body, words = reads(staged, *pieces)
    assert "broke" in words
    return body


def test_chunks_cut_anywhere(staged) -> None:
    """Every byte in a read of its own, with an extension and trailers; trailers are no headers."""
    stream = CHUNKED + b"3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nT: 1\r\n\r\n"

    async def turn(peer: Peer) -> None:
        while True:
            await peer.head()
            for at in range(len(stream)):
                await peer.say(stream[at : at + 1])
                await asyncio.sleep(0)

    async def test(wire: Wire, stage: Stage) -> None:
        for _ in range(2):
            async with answered(wire, "GET", "/", []) as answer:
                assert await answer.read() == b"abc0123456789"
                assert answer.raw_headers == [(b"Transfer-Encoding", b"chunked")]
        assert stage.made == 1

    staged(test, turn)


def test_what_is_here_comes_in_one_piece(staged) -> None:
    """However many chunks it has."""

    async def test(wire: Wire, _: Stage) -> None:
        async with answered(wire, "GET", "/", []) as answer:
            await asyncio.sleep(0.05)
            assert await answer.next() == b"abcdef"
            assert await answer.next() == b""
            assert await answer.next() == b""

    staged(test, answering(CHUNKED, b"3\r\nabc\r\n", b"3\r\ndef\r\n", b"0\r\n\r\n"))


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_body_until_the_end(staged, version) -> None:
    """Without a length, the connection's orderly end is the body's."""
    head = UNTIL_CLOSE.replace(b"1.1", version)
    assert reads(staged, head, b"abc") == (200, b"abc", "")


def test_a_reset_is_no_end(staged) -> None:
    """Half a body without a length does not pass for a whole one."""

    async def turn(peer: Peer) -> None:
        await peer.answer(UNTIL_CLOSE, b"abc")
        await asyncio.sleep(0.05)
        peer.reset()

    async def test(wire: Wire, _: Stage) -> None:
        async with answered(wire, "GET", "/", []) as answer:
            assert await answer.next() == b"abc"
            with pytest.raises(UpstreamFault, match="broke"):
                await answer.next()

    staged(test, turn)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"abc"], id="length"),
        pytest.param([CHUNKED, b"3\r\nabc\r\n"], id="no last chunk"),
        pytest.param([CHUNKED, b"5\r\nabc"], id="half a chunk"),
        pytest.param([CHUNKED, b"3\r\nabcXX0\r\n"], id="no chunk"),
    ],
)
def test_a_body_cut_off(staged, pieces) -> None:
    """What was read is read, and then it is broken."""
    assert fails(staged, *pieces) == b"abc"


@pytest.mark.parametrize(
    "piece",
    [
        b"",
        b"HTTP/1.1",
        b"hello\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 257 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
    ],
    ids=["nothing", "cut", "no HTTP", "101", "large", "endless", "many", "1xx for ever"],
)
def test_a_head_that_is_none(staged, piece) -> None:
    """It is broken, whatever it is, and never waited for."""
    assert fails(staged, piece) == b""


def test_a_large_head_is_read(staged) -> None:
    """Servers may say a lot."""
    lines = b"".join(b"x-%d: %s\r\n" % (n, b"y" * 200) for n in range(250))
    assert reads(staged, OK.replace(b"Content", lines + b"Content", 1)) == (200, b"hi", "")


def test_what_comes_before_the_answer_is_skipped(staged) -> None:
    """100 and 103 are no answers, and their headers not its."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"

    async def test(wire: Wire, stage: Stage) -> None:
        for _ in range(2):
            async with answered(wire, "GET", "/", []) as answer:
                assert answer.raw_headers == [(b"Content-Length", b"2")]
                assert await answer.read() == b"hi"
        assert stage.made == 1

    staged(test, answering(early, OK))


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", CHUNKED),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    ],
)
def test_answers_without_a_body(staged, method, head) -> None:
    """Whatever length they declare, nothing is waited for."""

    async def test(wire: Wire, _: Stage) -> None:
        assert await body_of(wire, method) == b""

    staged(test, answering(head))


def test_headers_are_found_in_any_case(staged) -> None:
    """By lower case; what is repeated is a list, and the raw ones are as they came."""

    async def test(wire: Wire, _: Stage) -> None:
        async with answered(wire, "GET", "/", []) as answer:
            assert answer.headers["x-two"] == "a, \xe9"
            assert answer.headers.get("nothing") is None
            assert answer.raw_headers[:2] == [(b"X-Two", b"a"), (b"x-tWo", b"\xe9")]

    head = b"HTTP/1.1 200 OK\r\nX-Two: a\r\nx-tWo: \xe9\r\n"
    staged(test, answering(OK.replace(b"HTTP/1.1 200 OK\r\n", head)))


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


WORDS = b"words " * 100


@pytest.mark.parametrize(
    ("coding", "coded", "expected"),
    [
        (b"gzip", gzip.compress(WORDS), WORDS),
        (b"GZip", gzip.compress(WORDS) + gzip.compress(b"more"), WORDS + b"more"),
        (b"deflate", zlib.compress(WORDS), WORDS),
        (b"deflate", raw_deflate(WORDS), WORDS),
        (b"gzip", b"", b""),
        (b"gzip", gzip.compress(WORDS)[:-9], None),
        (b"gzip", b"no gzip", None),
        (b"odd", b"as it is", b"as it is"),
    ],
    ids=["gzip", "members", "zlib", "raw", "empty", "half", "none", "unknown"],
)
def test_codings(staged, coding, coded, expected) -> None:
    """Byte by byte; half of a coded body is none, and raw it is what came."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"

    async def turn(peer: Peer) -> None:
        while True:
            await peer.answer(head % (coding, len(coded)))
            for at in range(len(coded)):
                await peer.say(coded[at : at + 1])
                await asyncio.sleep(0)

    async def test(wire: Wire, _: Stage) -> None:
        assert await body_of(wire, decompress=False) == coded
        if expected is None:
            with pytest.raises(UpstreamFault, match="broke"):
                await body_of(wire)
        else:
            assert await body_of(wire) == expected

    staged(test, turn)


def test_what_swells_comes_in_bounded_pieces(staged) -> None:
    """A small body that holds a large one does not fill the memory at once."""
    coded = gzip.compress(bytes(50_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(coded)

    async def test(wire: Wire, _: Stage) -> None:
        size = 0
        async with answered(wire, "GET", "/", []) as answer:
            while piece := await answer.next():
                assert len(piece) <= 1024 * 1024
                size += len(piece)
        assert size == 50_000_000

    staged(test, answering(head, coded))


def test_a_server_waits_for_who_takes_nothing(staged) -> None:
    """No more than a bounded part of an answer is held, and all of it can be read later."""
    size = 50_000_000
    said = []

    async def turn(peer: Peer) -> None:
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(500):
            await peer.say(b"x" * (size // 500))
            said.append(size // 500)
        await peer.answer(OK)

    async def test(wire: Wire, stage: Stage) -> None:
        async with answered(wire, "GET", "/", []) as answer:
            await asyncio.sleep(0.3)
            # The kernel's buffers take a few megabytes.
            assert sum(said) < size // 2
            first = await answer.next()
            assert len(first) < 1024 * 1024
            assert len(first) + len(await answer.read()) == size
        # Reading goes on afterwards.
        assert await body_of(wire) == b"hi"
        assert stage.made == 1

    staged(test, turn)


def test_a_server_that_says_nothing(staged) -> None:
    """Given up after the patience, before the head and after it."""

    async def turn(peer: Peer) -> bytes:
        await peer.head()
        return await peer.reader.read()

    async def halfway(peer: Peer) -> None:
        await peer.answer(UNTIL_CLOSE, b"abc")
        await peer.reader.read()

    async def test(wire: Wire, _: Stage) -> None:
        with pytest.raises(UpstreamFault, match="did not begin") as error:
            await body_of(wire, patience_seconds=0.05)
        assert error.value.status == 504
        async with answered(wire, "GET", "/", []) as answer:
            answer.begun = True
            assert await answer.next() == b"abc"
            with pytest.raises(UpstreamFault, match="in the middle"):
                await answer.next()

    staged(test, turn, halfway, idle_timeout_seconds=0.05)
