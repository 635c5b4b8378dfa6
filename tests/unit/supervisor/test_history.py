"""Request records on disk: they outlive the daemon, within a bound, whatever the file contains."""

import stat

import pytest
from structlog.testing import capture_logs

from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.supervisor.history import History
from anyclaude.supervisor.records import Journal
from anyclaude.worker.v1 import worker_pb2


def record(name, session="s", launch="l"):
    made = frontend_pb2.RequestRecord(
        request_id=name,
        launch_id=launch,
        outcome=frontend_pb2.OUTCOME_COMPLETED,
        identity=worker_pb2.Identity(session_id=session),
    )
    made.time_to_first_token.FromMilliseconds(312)
    return made


@pytest.fixture
def file(tmp_path):
    return tmp_path / "requests.jsonl"


def journal(file, max_records=10):
    """The journal of a daemon that starts now."""
    return Journal(max_records, History(file, max_records))


def names(records):
    return [each.request_id for each in records]


def test_records_outlive_the_daemon(file):
    """The next daemon has the same records, newest first, in a file that others cannot read."""
    first = journal(file)
    for name in ("a", "b\n\u2028", "c"):
        first.add(record(name))
    again = journal(file)
    assert again.newest(10) == first.newest(10)
    assert names(again.newest(2)) == ["c", "b\n\u2028"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_file_is_bounded(file):
    """It never has more than twice the records that are kept, nor do more of them come back."""
    first = journal(file, max_records=5)
    for number in range(23):
        first.add(record(str(number)))
        assert len(file.read_text().splitlines()) <= 10
    assert names(journal(file, max_records=5).newest(100)) == ["22", "21", "20", "19", "18"]
    assert len(file.read_text().splitlines()) == 5


def test_a_cut_line_costs_only_itself(file):
    """The last line that a crash cut is dropped with a warning, and does not spoil the next one."""
    journal(file).add(record("a"))
    with file.open("a") as stream:
        stream.write('{"requestId": "half')
    with capture_logs() as logs:
        second = journal(file)
    second.add(record("b"))
    assert names(journal(file).newest(10)) == ["b", "a"]
    assert [line["log_level"] for line in logs] == ["warning"]


def test_fields_of_a_later_version_are_ignored(file):
    """A daemon of an older version reads what it knows."""
    file.write_text('{"requestId": "a", "somethingNew": 1}\n')
    assert names(journal(file).newest(10)) == ["a"]


def test_a_file_that_cannot_be_written_is_reported_once(file):
    """The records stay in memory, and the log has one warning rather than one for each request."""
    file.mkdir()
    with capture_logs() as logs:
        first = journal(file)
        for name in ("a", "b"):
            first.add(record(name))
    assert names(first.newest(10)) == ["b", "a"]
    assert [line["event"] for line in logs] == [
        "request history ignored",
        "request history not written",
    ]


def test_records_of_one_session_or_launch():
    """The count is that of the matching records, not of those that were looked at."""
    kept = Journal(10)
    for name, session, launch in (("a", "s", "l"), ("b", "t", "l"), ("c", "s", "m")):
        kept.add(record(name, session, launch))
    assert names(kept.newest(1, session_id="s")) == ["c"]
    assert names(kept.newest(10, launch_id="l")) == ["b", "a"]
    assert names(kept.newest(10, session_id="s", launch_id="l")) == ["a"]
