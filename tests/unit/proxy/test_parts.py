"""Small parts of the front end: stalled clients, the record buffer, admission, frames."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.admission import Admission
from anyclaude.proxy.meter import Meter, StallWatch
from anyclaude.proxy.records import RecordFeed
from anyclaude.proxy.stream import encode


class FakeTransport:
    """Holds what is written until the client takes it."""

    def __init__(self) -> None:
        self.waiting = 0
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self.waiting += len(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def get_write_buffer_size(self) -> int:
        return self.waiting


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def meter(transport: FakeTransport, loop: asyncio.AbstractEventLoop) -> Meter:
    return Meter(cast(asyncio.Transport, transport), loop)


@pytest.fixture
def watch(meter: Meter, clock: Clock) -> StallWatch:
    return StallWatch(meter, 60, clock)


def test_client_that_takes_nothing_has_stalled(
    meter: Meter, watch: StallWatch, clock: Clock
) -> None:
    """Bytes that nobody takes for the whole limit end the connection, though more are added."""
    meter.write(b"x" * 10)
    assert not watch.has_stalled()
    clock.seconds = 59
    meter.write(b"x")
    assert not watch.has_stalled()
    clock.seconds = 60
    assert watch.has_stalled()


def test_slow_client_has_not_stalled(
    meter: Meter, transport: FakeTransport, watch: StallWatch, clock: Clock
) -> None:
    """A client that takes one byte a minute while ten are added is slow, not gone."""
    for minute in range(10):
        clock.seconds = minute * 59
        meter.write(b"x" * 10)
        transport.waiting -= 1
        assert not watch.has_stalled()


def test_idle_connection_has_not_stalled(watch: StallWatch, clock: Clock) -> None:
    """Nothing to take is no stall, however long."""
    clock.seconds = 3600
    assert not watch.has_stalled()


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0))


def test_a_head_leaves_with_what_follows_it(
    meter: Meter, transport: FakeTransport, loop: asyncio.AbstractEventLoop
) -> None:
    """One write for both; what comes after is its own."""
    meter.write(HEAD)
    meter.write(b"first")
    meter.write(b"second")
    turn(loop)
    assert transport.writes == [HEAD + b"first", b"second"]


def test_a_head_that_nothing_follows_leaves_by_itself(
    meter: Meter, transport: FakeTransport, loop: asyncio.AbstractEventLoop
) -> None:
    """In the same turn of the loop; until then the client has not taken it."""
    meter.write(HEAD)
    assert meter.taken_bytes == 0
    turn(loop)
    assert transport.writes == [HEAD]


def test_a_head_leaves_before_the_connection_closes(
    meter: Meter, transport: FakeTransport, loop: asyncio.AbstractEventLoop
) -> None:
    """An answer without a body is no less an answer."""
    meter.write(HEAD)
    meter.close()
    turn(loop)
    assert (transport.writes, transport.is_closed) == ([HEAD], True)


def test_a_go_on_is_no_head(meter: Meter, transport: FakeTransport) -> None:
    """A client that waits for it sends nothing before."""
    meter.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert len(transport.writes) == 1


def record(name: str) -> frontend.RequestRecord:
    return frontend.RequestRecord(request_id=name)


async def take(feed: RecordFeed, count: int) -> list[tuple[str, int]]:
    taken: list[tuple[str, int]] = []
    async for response in feed.follow():
        taken.append((response.record.request_id, response.dropped_records))
        if len(taken) == count:
            break
    return taken


def test_records_wait_for_a_follower() -> None:
    """Records made while nobody follows are delivered later, the oldest lost and counted."""

    async def scenario() -> None:
        feed = RecordFeed(2)
        for name in "abcd":
            feed.add(record(name))
        assert await take(feed, 2) == [("c", 2), ("d", 0)]

    asyncio.run(scenario())


def test_new_follower_ends_the_old_one() -> None:
    """A daemon that lost its stream gets the records, not its forgotten stream."""

    async def scenario() -> None:
        feed = RecordFeed(10)
        old = asyncio.ensure_future(take(feed, 1))
        await asyncio.sleep(0)
        new = asyncio.ensure_future(take(feed, 1))
        await asyncio.sleep(0)
        feed.add(record("a"))
        assert await new == [("a", 0)]
        assert await old == []

    asyncio.run(scenario())


def test_closed_feed_delivers_the_rest() -> None:
    """At the end a follower gets all records and then its own end."""

    async def scenario() -> None:
        feed = RecordFeed(10)
        feed.add(record("a"))
        feed.close()
        assert await take(feed, 5) == [("a", 0)]

    asyncio.run(scenario())


def test_admission_counts_places() -> None:
    """One request more than there are places is sent away; a place given back is free."""
    admission = Admission(1)
    with admission.slot():
        with pytest.raises(ApiError) as caught, admission.slot():
            pass
        assert (caught.value.status, caught.value.retry_after_seconds) == (529, 2)
    with admission.slot():
        pass


@pytest.mark.parametrize("text", ["a\nb\r\nc", "\u2028\x85\x0b", "\U0001f600"])
def test_frames_survive_every_way_of_splitting_lines(text: str) -> None:
    """One frame is two lines and an empty one, whatever the text holds."""
    event: dict[str, Any] = {"type": "content_block_delta", "delta": {"text": text}}
    assert len(encode(event).decode().splitlines()) == 3
