"""Speeds that outlive the daemon."""

import pytest

from anyclaude.supervisor.records import Journal
from anyclaude.supervisor.speeds import Speeds
from tests.unit.supervisor.test_measured import record, seconds


def speeds(file, *records):
    journal = Journal(100)
    for made in records:
        journal.add(made)
    return Speeds(journal, 100, file)


@pytest.fixture
def file(tmp_path):
    """What a daemon with one measured mode left."""
    path = tmp_path / "speeds.json"
    speeds(path, record(0.4)).keep({"mlx-lm": "a", "lmstudio": "b"})
    return path


def test_what_was_measured_is_known_after_a_restart(file):
    """Of the mode that was measured, and of no other."""
    later = speeds(file)
    kept = later.of("mlx-lm", "a")
    assert (kept.requests, seconds(kept)) == (1, pytest.approx(0.4))
    assert kept.tokens_per_second == pytest.approx(50.0)
    assert later.of("lmstudio", "b") is None


def test_what_is_measured_anew_wins(file):
    assert seconds(speeds(file, record(0.2)).of("mlx-lm", "a")) == pytest.approx(0.2)


def test_another_models_speed_says_nothing(file):
    assert speeds(file).of("mlx-lm", "other") is None


def test_a_daemon_without_requests_forgets_nothing(file):
    """Two restarts in a row."""
    speeds(file).keep({"mlx-lm": "a"})
    assert speeds(file).of("mlx-lm", "a").requests == 1


def test_the_file_is_private(file):
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"model": "m", "speed": {"x": 1}}}'])
def test_a_damaged_file_is_no_obstacle(tmp_path, text):
    path = tmp_path / "speeds.json"
    path.write_text(text)
    assert speeds(path).of("a", "m") is None


def test_no_place_to_write_is_no_obstacle(tmp_path):
    (tmp_path / "state").write_text("a file where the folder should be")
    speeds(tmp_path / "state" / "speeds.json", record()).keep({"mlx-lm": "a"})
