"""Keeps the machine from going to sleep by itself while a request runs.

A program of the system does it for as long as it runs a command. Ours is `cat`, which ends when its
input does: so the machine may sleep again as soon as this process ends, whatever ends it. Who puts
the machine to sleep by hand, or closes the lid, is not kept from it.
"""

import asyncio
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from typing import Final

import structlog

log = structlog.get_logger("anyclaude.proxy")

_COMMANDS: Final = {
    "darwin": ("caffeinate", "-i", "cat"),
    "linux": (
        "systemd-inhibit",
        "--what=idle",
        "--who=anyclaude",
        "--why=A request is running",
        "cat",
    ),
}


def command_of(platform: str = sys.platform) -> Sequence[str]:
    """The command that keeps this machine awake; empty if it has none."""
    program, *arguments = _COMMANDS.get(platform, ("",))
    found = shutil.which(program)
    return (found, *arguments) if found else ()


class KeepAwake:
    """Runs the command from the first request on until `after_seconds` behind the last one."""

    def __init__(self, command: Sequence[str], after_seconds: float) -> None:
        """An empty `command` keeps nothing awake."""
        self._command = command
        self._after_seconds = after_seconds
        self._busy = asyncio.Event()
        self._idle = asyncio.Event()
        self._has_failed = False

    def set_running(self, requests: int) -> None:
        """Tells how many requests run now."""
        now, other = (self._busy, self._idle) if requests else (self._idle, self._busy)
        now.set()
        other.clear()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while self._command:
            await self._busy.wait()
            # Shielded, since asyncio may wait for ever for a process whose start is cancelled.
            start = asyncio.ensure_future(
                asyncio.create_subprocess_exec(
                    *self._command, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL
                )
            )
            try:
                await asyncio.shield(start)
                await self._until_idle()
            finally:
                process = await start
                assert process.stdin is not None
                process.stdin.close()
                self._note_end(await process.wait())

    async def _until_idle(self) -> None:
        while True:
            await self._idle.wait()
            try:
                async with asyncio.timeout(self._after_seconds):
                    await self._busy.wait()
            except TimeoutError:
                return

    def _note_end(self, code: int) -> None:
        if code and not self._has_failed:
            log.info("the machine may sleep during requests", command=self._command, exit_code=code)
            self._has_failed = True
