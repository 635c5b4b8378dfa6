"""The speed of each mode and recent needs, from request records; speeds outlive the daemon."""

import pytest
from structlog.testing import capture_logs

from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.supervisor.records import Journal
from anyclaude.supervisor.speeds import Speeds, recent_needs, speed
from anyclaude.worker.v1 import worker_pb2


def record(first=0.5, mode="mlx-lm", model="a", tokens=100, decode=2.0, **fields):
    """A completed request of a conversation."""
    whole = {"route": "/v1/messages", "outcome": frontend_pb2.OUTCOME_COMPLETED} | fields
    answer = frontend_pb2.RequestRecord(mode=mode, model=model, **whole)
    answer.duration.FromMilliseconds(4500)
    if first is not None:
        answer.time_to_first_token.FromMilliseconds(round(first * 1000))
    answer.usage.output_tokens = tokens
    if decode is not None:
        answer.timings.decode.FromMilliseconds(round(decode * 1000))
    return answer


def seconds(measured):
    return measured.cold_time_to_first_token.ToTimedelta().total_seconds()


def test_speed_is_the_median_of_a_modes_requests():
    """The speed is the median of the mode's own requests."""
    records = [record(0.2), record(0.4), record(30.0), record(9.0, mode="lmstudio")]
    measured = speed(records, "mlx-lm", "a")
    assert (measured.requests, seconds(measured)) == (3, pytest.approx(0.4))
    assert measured.tokens_per_second == pytest.approx(50.0)


def test_warm_and_cold_requests_have_a_median_each():
    """A request that reused tokens does not change the figure of those that reused none."""
    warm, other = record(0.1), record(0.3)
    for made in (warm, other):
        made.usage.cache_read_tokens = 20_000
    measured = speed([record(30.0), warm, other], "mlx-lm", "a")
    assert seconds(measured) == pytest.approx(30.0)
    assert measured.warm_time_to_first_token.ToMilliseconds() == 200
    assert not speed([warm], "mlx-lm", "a").HasField("cold_time_to_first_token")


def test_another_model_of_the_mode_is_not_counted():
    """The history may reach back to before a change of model."""
    assert speed([record(), record(model="b")], "mlx-lm", "a").requests == 1


def test_a_rate_without_the_workers_timing_counts_what_came_after_the_first_token():
    """4.5 s in all, the first token after 0.5 s, 100 tokens."""
    assert speed([record(decode=None)], "mlx-lm", "a").tokens_per_second == pytest.approx(25.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": frontend_pb2.OUTCOME_FAILED},
        {"first": None},
        {"route": "/v1/messages/count_tokens"},
        {"identity": worker_pb2.Identity(request_class=worker_pb2.REQUEST_CLASS_UTILITY)},
    ],
)
def test_other_requests_are_not_measured(fields):
    """Failures, responses without a token, token counts and titles do not change the speed."""
    assert speed([record(**fields)], "mlx-lm", "a") is None


def test_an_answer_of_a_few_tokens_has_no_rate():
    """A short answer gives a time to first token and no rate."""
    measured = speed([record(tokens=2)], "mlx-lm", "a")
    assert measured.requests == 1
    assert not measured.HasField("tokens_per_second")


def test_needs_are_those_of_all_modes():
    """Needs: the longest prompt, whether tools were called, whether prompts had images."""
    long, calling, showing = record(), record(mode="lmstudio"), record()
    long.usage.cache_read_tokens, long.usage.input_tokens = 30_000, 5
    calling.stop_reason = worker_pb2.STOP_REASON_TOOL_USE
    showing.images = 1
    assert recent_needs([]) == recent_needs([record()])
    needs = recent_needs([long, calling, showing])
    assert (needs.longest_prompt_tokens, needs.tools, needs.images) == (30_005, True, True)


def speeds(file, *records):
    """The speeds of a daemon that has answered the requests of `records`."""
    journal = Journal(100)
    for made in records:
        journal.add(made)
    return Speeds(journal, 100, file)


@pytest.fixture
def file(tmp_path):
    """The file of a daemon that measured one of its two modes."""
    path = tmp_path / "speeds.json"
    speeds(path, record(0.4)).save({"mlx-lm": "a", "lmstudio": "b"})
    return path


def test_a_measured_speed_is_known_after_a_restart(file):
    """The measured mode has its speed again; the mode without requests has none."""
    later = speeds(file)
    saved = later.of("mlx-lm", "a")
    assert (saved.requests, seconds(saved)) == (1, pytest.approx(0.4))
    assert saved.tokens_per_second == pytest.approx(50.0)
    assert later.of("lmstudio", "b") is None


def test_a_new_measurement_replaces_the_saved_one(file):
    """One new request counts more than everything before the restart."""
    assert seconds(speeds(file, record(0.2)).of("mlx-lm", "a")) == pytest.approx(0.2)


def test_the_speed_of_another_model_is_not_used(file):
    """After a change of model the speed is unknown until a request is measured."""
    assert speeds(file).of("mlx-lm", "other") is None


def test_a_run_without_requests_keeps_the_saved_speeds(file):
    """The speed is still there after two restarts in a row."""
    speeds(file).save({"mlx-lm": "a"})
    assert speeds(file).of("mlx-lm", "a").requests == 1


def test_the_file_is_private(file):
    """Only its owner can read which models were used."""
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"model": "m", "speed": {"x": 1}}}'])
def test_a_damaged_file_is_replaced(tmp_path, text):
    """Speeds start empty, and the next save makes the file whole again."""
    path = tmp_path / "speeds.json"
    path.write_text(text)
    damaged = speeds(path, record(0.4))
    assert damaged.of("a", "m") is None
    damaged.save({"mlx-lm": "a"})
    assert speeds(path).of("mlx-lm", "a").requests == 1


def test_a_folder_that_cannot_be_written_is_only_logged(tmp_path):
    """The daemon still stops cleanly, its speeds stay known in memory, and the log says why."""
    (tmp_path / "state").write_text("a file where the folder should be")
    measured = speeds(tmp_path / "state" / "speeds.json", record(0.4))
    with capture_logs() as events:
        measured.save({"mlx-lm": "a"})
    assert [event["log_level"] for event in events] == ["warning"]
    assert str(tmp_path / "state" / "speeds.json") == events[0]["file"]
    assert measured.of("mlx-lm", "a").requests == 1
    assert (tmp_path / "state").is_file()
