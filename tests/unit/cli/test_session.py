"""The metrics of one session, from request records."""

import pytest

from anyclaude.cli.session import session_metrics
from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.worker.v1 import worker_pb2


def _record(reused: int, computed: int, prefill: float, session: str = "s"):
    record = frontend_pb2.RequestRecord(
        identity=worker_pb2.Identity(session_id=session),
        usage=worker_pb2.Usage(
            input_tokens=1, cache_read_tokens=reused, cache_creation_tokens=computed - 1
        ),
    )
    record.timings.prefill.FromMilliseconds(round(1000 * prefill))
    record.duration.FromMilliseconds(round(1000 * prefill + 1000))
    return record


def test_saved_time_is_measured_by_the_sessions_own_cold_requests() -> None:
    """10,000 tokens in 20 s, then twice 10,000 reused: 40 s saved. Other sessions do not count."""
    records = [
        _record(10_000, 100, 0.5),
        _record(10_000, 50, 0.5),
        _record(0, 10_000, 20.0),
        _record(0, 10_000, 1.0, "other"),
    ]
    found = session_metrics(records, "s")
    assert (found.requests, found.cache_hits, found.reused_tokens) == (3, 2, 20_000)
    assert found.prompt_tokens == 30_150
    assert found.average_seconds == pytest.approx(8.0)
    assert found.saved_seconds == pytest.approx(40.0)
    assert "20,000 tokens were not computed again" in " ".join(found.sentences())


def test_without_a_cold_request_no_time_is_claimed() -> None:
    """A session that began warm has no rate of its own, and an unknown one no figures."""
    found = session_metrics([_record(10_000, 100, 0.5)], "s")
    assert found.saved_seconds is None
    assert "not known" in found.sentences()[-1]
    assert session_metrics([], "s").sentences() == ["No request of this session is known."]
