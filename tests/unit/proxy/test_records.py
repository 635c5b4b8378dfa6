"""The record of a request, and the buffer that the daemon reads."""

import asyncio

import pytest

from anyclaude.frontend.v1 import frontend_pb2 as frontend
from anyclaude.messages.errors import ApiError
from anyclaude.proxy.records import RecordBuilder, RecordFeed
from anyclaude.worker.v1 import worker_pb2 as worker

pytestmark = pytest.mark.anyio


def named(name: str) -> frontend.RequestRecord:
    return frontend.RequestRecord(request_id=name)


async def read(feed: RecordFeed, count: int) -> list[tuple[str, int]]:
    """Ids and dropped counts of the next `count` records, or fewer where the stream ends."""
    found: list[tuple[str, int]] = []
    async for response in feed.follow():
        found.append((response.record.request_id, response.dropped_records))
        if len(found) == count:
            break
    return found


async def test_records_wait_for_a_follower() -> None:
    """Records made while nobody follows are delivered later, the oldest dropped and counted."""
    feed = RecordFeed(2)
    for name in "abcd":
        feed.add(named(name))
    assert await read(feed, 2) == [("c", 2), ("d", 0)]


async def test_a_new_follower_ends_the_old_one() -> None:
    """A daemon that lost its stream gets the records, and its abandoned stream none."""
    feed = RecordFeed(10)
    old = asyncio.ensure_future(read(feed, 1))
    await asyncio.sleep(0)
    new = asyncio.ensure_future(read(feed, 1))
    await asyncio.sleep(0)
    feed.add(named("a"))
    assert await new == [("a", 0)]
    assert await old == []


async def test_a_closed_feed_delivers_the_rest() -> None:
    """A follower gets all records before the closed feed ends its stream."""
    feed = RecordFeed(10)
    feed.add(named("a"))
    feed.close()
    assert await read(feed, 5) == [("a", 0)]


def test_a_cancelled_prefill_counts_what_was_computed() -> None:
    """Of 1,000 tokens 100 were reused and 300 computed before the client left."""
    builder = RecordBuilder("req_1", "/v1/messages")
    usage = worker.Usage(input_tokens=1, cache_read_tokens=100, cache_creation_tokens=899)
    builder.set_started(worker.Started(usage=usage))
    builder.set_progress(worker.Progress(prefilled_tokens=400, prompt_tokens=1000))
    builder.set_client_gone()
    usage = builder.build(0).usage
    assert (usage.input_tokens, usage.cache_creation_tokens) == (0, 300)
    assert usage.cache_read_tokens == 100


def test_a_request_without_errors_is_completed() -> None:
    """A record whose request reported nothing else has the outcome completed."""
    record = RecordBuilder("req_1", "/v1/messages").build(200)
    assert (record.outcome, record.status) == (frontend.OUTCOME_COMPLETED, 200)
    assert not record.HasField("time_to_first_token")


def test_an_error_stays_when_the_client_leaves() -> None:
    """A client that leaves before it reads a refusal does not turn it into a cancellation."""
    builder = RecordBuilder("req_1", "/v1/messages")
    builder.set_error(ApiError(400, "why"))
    builder.set_client_gone()
    record = builder.build(0)
    assert (record.outcome, record.error_message) == (frontend.OUTCOME_FAILED, "why")


def test_messages_of_another_server_are_not_recorded() -> None:
    """An error from an upstream is recorded by its type alone, since it may quote the prompt."""
    builder = RecordBuilder("req_1", "/v1/messages")
    builder.omits_error_messages = True
    builder.set_error(ApiError(400, "your prompt said ..."))
    record = builder.build(400)
    assert (record.error_type, record.error_message) == ("invalid_request_error", "")
