"""What a child writes: read without blocking it, logged again, kept as a tail."""

import asyncio
import json
import logging
import os
import stat

import pytest
from structlog.testing import capture_logs

from anyclaude.runtime.settings import LogSettings
from anyclaude.supervisor import log_file
from anyclaude.supervisor.child_logs import TAIL_BYTES, ChildLog
from anyclaude.supervisor.pipes import MAX_LINE_BYTES, LinePipe


def test_a_json_line_is_logged_again_with_its_fields():
    """Level, event and fields survive; the child's name is added."""
    with capture_logs() as events:
        ChildLog("mlx").line(b'{"event": "loaded", "level": "error", "tokens": 3, "timestamp": 1}')
    assert events == [{"event": "loaded", "log_level": "error", "tokens": 3, "worker": "mlx"}]


@pytest.mark.parametrize("line", [b"Fatal Python error", b"[1]", b"{}", b'{"no": "event"}'])
def test_anything_else_is_wrapped(line):
    """Native crash text and half a JSON document reach the log as text."""
    with capture_logs() as events:
        ChildLog("mlx").line(line)
    assert events[0]["event"] == "raw output"
    assert events[0]["text"] == line.decode()


def test_the_tail_keeps_the_last_8_kib():
    """However much a child writes, only the end is kept."""
    log = ChildLog("mlx")
    with capture_logs():
        for number in range(2000):
            log.line(f"line {number}".encode())
    assert len(log.tail.encode()) == TAIL_BYTES
    assert log.tail.endswith("line 1999\n")


def test_lines_are_put_together_and_the_rest_is_flushed():
    """Pieces join to lines, an endless one is cut, and the unfinished end is not lost."""

    async def read():
        lines = []
        source, sink = os.pipe()
        pipe = LinePipe(asyncio.get_running_loop(), source, lines.append)
        os.write(sink, b"one\ntw")
        os.write(sink, b"o\n")
        # What is written must be read meanwhile, or the writer would block here.
        for _ in range(3):
            await asyncio.to_thread(os.write, sink, b"x" * (MAX_LINE_BYTES // 2))
            await asyncio.sleep(0)
        os.write(sink, b"\nend")
        pipe.finish()
        os.close(sink)
        return lines

    lines = asyncio.run(read())
    assert lines[:2] == [b"one", b"two"]
    assert lines[-1] == b"end"
    assert sum(map(len, lines[2:-1])) == 3 * (MAX_LINE_BYTES // 2)
    assert max(map(len, lines)) <= 2 * MAX_LINE_BYTES


def test_the_log_file_is_private_and_rotates(tmp_path):
    """Every file 0600, never more than asked for, JSON on every line."""
    file = tmp_path / "anyclauded.log"
    logger = logging.getLogger("anyclaude.test")
    logger.setLevel(logging.INFO)
    with log_file.attached(file, LogSettings(file_max_bytes=4096, file_count=2)):
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
