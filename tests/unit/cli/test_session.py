"""The metrics of one session, from its request records."""

import pytest

from anyclaude.cli.session import metrics_of
from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.worker.v1 import worker_pb2


def _record(reused: int, computed: int, prefill: float):
    record = frontend_pb2.RequestRecord(
        usage=worker_pb2.Usage(
            input_tokens=1, cache_read_tokens=reused, cache_creation_tokens=computed - 1
        ),
    )
    record.timings.prefill.FromMilliseconds(round(1000 * prefill))
    record.duration.FromMilliseconds(round(1000 * prefill + 1000))
    return record


def test_saved_time_is_measured_by_the_sessions_own_cold_requests() -> None:
    """10,000 tokens in 20 s, then twice 10,000 reused: 40 s saved."""
    records = [
        _record(10_000, 100, 0.5),
        _record(10_000, 50, 0.5),
        # Every prompt begins with the same token.
        _record(1, 9_999, 20.0),
    ]
    found = metrics_of(records)
    assert (found.requests, found.cache_hits, found.reused_tokens) == (3, 2, 20_001)
    assert found.prompt_tokens == 30_150
    assert found.average_seconds == pytest.approx(8.0)
    assert found.saved_seconds == pytest.approx(40.0, rel=0.01)
    assert "20,001 tokens were not computed again" in " ".join(found.sentences())


def test_without_a_cold_request_no_time_is_claimed() -> None:
    """A session that began warm has no rate of its own, and an unknown one no figures."""
    found = metrics_of([_record(10_000, 100, 0.5)])
    assert found.saved_seconds is None
    assert "not known" in found.sentences()[-1]
    assert metrics_of([]).sentences() == ["No request of this session is known."]
