"""Protobuf messages as the plain values of `--json`."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from anyclaude.cli.convert import seconds_since, to_dict, word_of
from anyclaude.control.v1 import control_pb2
from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.messages.enum_words import enum_word
from anyclaude.worker.v1 import worker_pb2


def test_every_key_is_always_there() -> None:
    """An empty message has all keys: zeros, empty lists, and None for unset optional fields."""
    document = to_dict(control_pb2.Worker())

    assert list(document) == [field.name for field in control_pb2.Worker.DESCRIPTOR.fields]
    assert document["restart_count"] == 0
    assert document["last_exit"] is None
    assert to_dict(control_pb2.LastExit())["code"] is None
    assert to_dict(control_pb2.LastExit(code=0))["code"] == 0
    assert to_dict(control_pb2.ListWorkersResponse())["workers"] == []


def test_wide_integers_are_numbers() -> None:
    """64-bit integers stay numbers; protobuf's own mapping makes them strings."""
    document = to_dict(worker_pb2.MemoryStatus(active_bytes=2**53))

    assert document["active_bytes"] == 2**53


def test_durations_and_times() -> None:
    """Durations are seconds and times are RFC 3339."""
    record = frontend_pb2.RequestRecord()
    record.duration.FromMilliseconds(1250)
    record.start_time.FromJsonString("2026-01-02T03:04:05.600Z")

    document = to_dict(record)

    assert document["duration"] == 1.25
    assert document["start_time"] == "2026-01-02T03:04:05.600Z"
    assert document["time_to_first_token"] is None


def test_enums_are_words_without_prefix() -> None:
    """Enums are words, also in nested messages; an unknown number is shown as such."""
    worker = control_pb2.Worker(state=control_pb2.WORKER_STATE_BACKOFF)
    document = to_dict(control_pb2.Status(workers=[worker]))

    assert document["workers"][0]["state"] == "backoff"
    assert document["readiness"] == "unspecified"
    assert word_of(worker, "state") == "backoff"
    assert enum_word(control_pb2.WorkerState.DESCRIPTOR, 99) == "unknown_99"


def test_maps_bytes_and_odd_floats() -> None:
    """Maps are objects, bytes are text, and NaN and infinity are null."""
    metric = control_pb2.Metric(name="m", labels={"b": "2", "a": "1"}, value=float("inf"))
    document = to_dict(control_pb2.GetMetricsResponse(text=b"m 1\n", metrics=[metric]))

    assert document["text"] == "m 1\n"
    assert document["metrics"][0]["labels"] == {"a": "1", "b": "2"}
    assert document["metrics"][0]["value"] is None


def test_ages_are_never_negative() -> None:
    """A time in the future is zero seconds ago."""
    moment = Timestamp(seconds=1000)

    assert seconds_since(moment, datetime.fromtimestamp(1060, UTC)) == 60
    assert seconds_since(moment, datetime.fromtimestamp(900, UTC)) == 0
