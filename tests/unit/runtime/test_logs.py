"""The log file of the daemon, and what its lines show."""

import io
import json
import logging
import stat
import sys

import pytest

from anyclaude.runtime import logs
from anyclaude.runtime.settings import LogSettings


def test_the_log_file_is_private_and_rotates(tmp_path):
    """Every file 0600, never more than asked for, JSON on every line."""
    file = tmp_path / "anyclauded.log"
    logger = logging.getLogger("anyclaude.test")
    logger.setLevel(logging.INFO)
    with logs.to_file(file, LogSettings(file_max_bytes=4096, file_count=2)):
        for number in range(200):
            logger.info("line %d of many", number)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == [
        "anyclauded.log",
        "anyclauded.log.1",
        "anyclauded.log.2",
    ]
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_size <= 4096
        assert all(json.loads(line)["event"] for line in path.read_text().splitlines())


@pytest.mark.parametrize("pretty", [True, False])
def test_a_traceback_does_not_show_the_values_of_variables(pretty: bool) -> None:
    """They may be prompts and keys, so no log shows them, on a terminal either."""
    secret = "-".join(["sk", "secret"])
    with io.StringIO() as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logs.formatter(pretty=pretty))
        try:
            raise ValueError(len(secret))
        except ValueError:
            record = logging.LogRecord("it", logging.ERROR, "", 1, "failed", (), sys.exc_info())
        handler.emit(record)
        assert "ValueError" in stream.getvalue()
        assert secret not in stream.getvalue()
