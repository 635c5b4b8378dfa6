"""The machine stays awake while requests run: a recorder stands in for the system's program."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from anyclaude.proxy.keep_awake import KeepAwake, command_of

WAIT_SECONDS = 60.0
# Notes when it begins, runs the command that it is given, and notes when that has ended.
_RECORDER = """#!/bin/sh
echo "$@" >> "$0.log"
"$1"
echo end >> "$0.log"
"""


class Recorder:
    def __init__(self, folder: Path) -> None:
        self.program = folder / "recorder"
        self.program.write_text(_RECORDER)
        self.program.chmod(0o755)

    @property
    def lines(self) -> list[str]:
        log = self.program.with_name("recorder.log")
        return log.read_text().splitlines() if log.exists() else []

    def wait_for(self, holds: Callable[[list[str]], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds(self.lines):
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.02)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


async def _seen(recorder: Recorder, lines: list[str]) -> None:
    await asyncio.to_thread(recorder.wait_for, lambda seen: seen == lines)


def _children() -> set[psutil.Process]:
    """Also those that other tests left to this process."""
    return set(psutil.Process().children())


def test_awake_from_the_first_request_to_the_last(recorder: Recorder) -> None:
    """Two requests that overlap are one wake time, and a later request begins another."""

    async def requests() -> None:
        awake = KeepAwake([str(recorder.program), "cat"], after_seconds=0.0)
        task = asyncio.create_task(awake.run())
        awake.set_running(1)
        await _seen(recorder, ["cat"])
        for count in (2, 1):
            awake.set_running(count)
        assert recorder.lines == ["cat"]
        awake.set_running(0)
        await _seen(recorder, ["cat", "end"])
        awake.set_running(1)
        await _seen(recorder, ["cat", "end", "cat"])
        # The service stops while a request runs.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await _seen(recorder, ["cat", "end", "cat", "end"])

    asyncio.run(requests())


def test_a_stop_while_the_program_begins(recorder: Recorder) -> None:
    """The service stops at any moment of the start of the program, and leaves none behind."""
    before = _children()

    async def stop_after(turns: int) -> None:
        awake = KeepAwake([str(recorder.program), "cat"], after_seconds=0.0)
        awake.set_running(1)
        task = asyncio.create_task(awake.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=WAIT_SECONDS)
        assert task.done()
        assert _children() <= before

    for turns in range(8):
        asyncio.run(stop_after(turns))


def test_pauses_between_requests_are_bridged(recorder: Recorder) -> None:
    """A request that follows soon needs no new process."""

    async def requests() -> None:
        awake = KeepAwake([str(recorder.program), "cat"], after_seconds=WAIT_SECONDS)
        task = asyncio.create_task(awake.run())
        awake.set_running(1)
        await _seen(recorder, ["cat"])
        for count in (0, 1, 0):
            awake.set_running(count)
            await asyncio.sleep(0)
        assert recorder.lines == ["cat"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(requests())


def test_the_death_of_the_process_lets_the_machine_sleep(recorder: Recorder) -> None:
    """Even if the front end is killed, nothing keeps the machine awake for ever."""
    code = (
        "import asyncio, sys\n"
        "from anyclaude.proxy.keep_awake import KeepAwake\n"
        "async def main():\n"
        "    awake = KeepAwake([sys.argv[1], 'cat'], 0.0)\n"
        "    awake.set_running(1)\n"
        "    await awake.run()\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(recorder.program)])
    try:
        recorder.wait_for(lambda seen: seen == ["cat"])
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    recorder.wait_for(lambda seen: seen == ["cat", "end"])


def test_a_program_that_ends_early_is_not_left_behind(recorder: Recorder) -> None:
    """Where the system refuses, as without D-Bus, no ended process stays while requests run."""
    before = _children()

    async def requests() -> None:
        awake = KeepAwake([str(recorder.program), "false"], after_seconds=0.0)
        task = asyncio.create_task(awake.run())
        awake.set_running(1)
        await _seen(recorder, ["false", "end"])
        deadline = time.monotonic() + WAIT_SECONDS
        while not _children() <= before:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(requests())


def test_a_machine_without_such_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program nothing is started; with it, each system has its own command."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not command_of("linux")
    assert not command_of("win32")
    asyncio.run(KeepAwake(command_of("linux"), 0.0).run())
    for name in ("caffeinate", "systemd-inhibit"):
        shutil.copy("/bin/sh", tmp_path / name)
    assert command_of("darwin") == (str(tmp_path / "caffeinate"), "-i", "cat")
    assert command_of("linux")[0] == str(tmp_path / "systemd-inhibit")
    assert command_of("linux")[-1] == "cat"
