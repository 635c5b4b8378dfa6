"""Streams that mix what servers do are read as they are meant, however they are cut."""

import json
from random import Random
from typing import Any

import pytest

from anyclaude.relay.dialect import BrokenAnswerError, RefusedInStreamError
from anyclaude.relay.sse import ServerEvent, SseParser
from tests.integration.relay_process import fold
from tests.unit.relay.generated_streams import Generator, reader_of, run

PARTS = 5
JUNK: tuple[Any, ...] = (
    *(None, 1, -1, 1.5, True, "", "x", [], {}, [None], {"a": 1}, "{}", "null", [[]]),
    *("\ud83d", {"text": 1}, ["text"], {"type": "text", "text": 3}),
)


@pytest.mark.parametrize("part", range(PARTS))
def test_generated_streams(part: int) -> None:
    """Of 500 streams each gives the same message whole and cut, and no call is lost or doubled.

    A stream that breaks off before its end, or ends in a failure, is an error.
    """
    figures, kinds = run(100, seed=part + 1)
    assert figures["streams"] == 100
    assert figures["failures reported"] > 0
    assert figures["broken off, reported as an error"] > 50
    assert len(kinds) > 30


def damaged(value: Any, random: Random) -> Any:
    """A JSON value with parts left out, and others replaced by junk."""
    if random.random() < 0.06:
        return random.choice(JUNK)
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if random.random() > 0.03}
        return {key: damaged(inner, random) for key, inner in kept.items()}
    return [damaged(inner, random) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_streams(part: int) -> None:
    """Whatever a server sends becomes a message of the right grammar, or an error of the reader."""
    outcomes = set()
    for number in range(part * 100, part * 100 + 100):
        random = Random(number)
        stream = Generator(number).stream()
        reader = reader_of(stream)
        try:
            for event in SseParser().feed(stream.data):
                if reader.is_done:
                    break
                try:
                    written = json.dumps(damaged(json.loads(event.data), random))
                except ValueError:
                    written = event.data
                reader.feed(ServerEvent(event.name, written))
            reader.finish()
        except (BrokenAnswerError, RefusedInStreamError):
            outcomes.add("error")
        else:
            fold(reader.take())
            outcomes.add("message")
    assert outcomes == {"error", "message"}
