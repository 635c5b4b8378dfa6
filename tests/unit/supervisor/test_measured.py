"""Speed of each mode and recent needs, from request records."""

import pytest

from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.supervisor.measured import recent_needs, speed
from anyclaude.worker.v1 import worker_pb2


def record(first=0.5, mode="mlx-lm", tokens=100, decode=2.0, **fields):
    """A completed request of a conversation."""
    whole = {"route": "/v1/messages", "outcome": frontend_pb2.OUTCOME_COMPLETED} | fields
    answer = frontend_pb2.RequestRecord(mode=mode, **whole)
    answer.duration.FromMilliseconds(4500)
    if first is not None:
        answer.time_to_first_token.FromMilliseconds(round(first * 1000))
    answer.usage.output_tokens = tokens
    if decode is not None:
        answer.timings.decode.FromMilliseconds(round(decode * 1000))
    return answer


def seconds(measured):
    return measured.time_to_first_token.ToTimedelta().total_seconds()


def test_speed_is_the_median_of_a_modes_requests():
    """One cold start does not stand for all, and other modes do not count."""
    records = [record(0.2), record(0.4), record(30.0), record(9.0, mode="lmstudio")]
    measured = speed(records, "mlx-lm")
    assert (measured.requests, seconds(measured)) == (3, pytest.approx(0.4))
    assert measured.tokens_per_second == pytest.approx(50.0)


def test_a_rate_without_the_workers_timing_counts_what_came_after_the_first_token():
    """4.5 s in all, the first token after 0.5 s, 100 tokens."""
    assert speed([record(decode=None)], "mlx-lm").tokens_per_second == pytest.approx(25.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": frontend_pb2.OUTCOME_FAILED},
        {"first": None},
        {"route": "/v1/messages/count_tokens"},
        {"identity": worker_pb2.Identity(request_class=worker_pb2.REQUEST_CLASS_UTILITY)},
    ],
)
def test_what_does_not_tell_is_not_measured(fields):
    """Failures, answers without a token, counts and titles say nothing of a conversation."""
    assert speed([record(**fields)], "mlx-lm") is None


def test_an_answer_of_a_few_tokens_has_no_rate():
    """Its first token is still a fact."""
    measured = speed([record(tokens=2)], "mlx-lm")
    assert measured.requests == 1
    assert not measured.HasField("tokens_per_second")


def test_needs_are_those_of_all_modes():
    """The longest prompt, whether answers called tools, whether prompts held images."""
    long, calling, showing = record(), record(mode="lmstudio"), record()
    long.usage.cache_read_tokens, long.usage.input_tokens = 30_000, 5
    calling.stop_reason = worker_pb2.STOP_REASON_TOOL_USE
    showing.images = 1
    assert recent_needs([]) == recent_needs([record()])
    needs = recent_needs([long, calling, showing])
    assert (needs.longest_prompt_tokens, needs.tools, needs.images) == (30_005, True, True)
