"""The output of a child is read without blocking it, logged again, and its tail kept."""

import asyncio
import os

import pytest
from structlog.testing import capture_logs

from anyclaude.supervisor.child_output import MAX_LINE_BYTES, TAIL_BYTES, ChildLog, LinePipe


def test_a_json_line_is_logged_again_with_its_fields():
    """Level, event and fields are kept, and the child's name is added."""
    with capture_logs() as events:
        ChildLog("mlx").line(b'{"event": "loaded", "level": "error", "tokens": 3, "timestamp": 1}')
    assert events == [{"event": "loaded", "log_level": "error", "tokens": 3, "worker": "mlx"}]


@pytest.mark.parametrize("line", [b"Fatal Python error", b"[1]", b"{}", b'{"no": "event"}'])
def test_anything_else_is_wrapped(line):
    """Native crash text and incomplete JSON are logged as text."""
    with capture_logs() as events:
        ChildLog("mlx").line(line)
    assert events[0]["event"] == "raw output"
    assert events[0]["text"] == line.decode()


def test_the_tail_keeps_the_last_8_kib():
    """However much a child writes, only its last 8 KiB are kept."""
    log = ChildLog("mlx")
    with capture_logs():
        for number in range(2000):
            log.line(f"line {number}".encode())
    assert len(log.tail.encode()) == TAIL_BYTES
    assert log.tail.endswith("line 1999\n")


@pytest.mark.anyio
async def test_pieces_are_joined_to_lines_and_the_rest_is_flushed():
    """Pieces become lines, an endless line is cut, and the unfinished end is not lost."""
    lines = []
    source, sink = os.pipe()
    pipe = LinePipe(asyncio.get_running_loop(), source, lines.append)
    os.write(sink, b"one\ntw")
    os.write(sink, b"o\n")
    # A write blocks this thread pool until the pipe is read by the loop.
    for _ in range(3):
        await asyncio.to_thread(os.write, sink, b"x" * (MAX_LINE_BYTES // 2))
        await asyncio.sleep(0)
    os.write(sink, b"\nend")
    pipe.finish()
    os.close(sink)
    assert lines[:2] == [b"one", b"two"]
    assert lines[-1] == b"end"
    assert sum(map(len, lines[2:-1])) == 3 * (MAX_LINE_BYTES // 2)
    assert max(map(len, lines)) <= 2 * MAX_LINE_BYTES
