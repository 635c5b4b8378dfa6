"""A runner that records platform commands and returns scripted results, and a fake clock."""

from collections.abc import Callable, Sequence
from subprocess import CompletedProcess

from anyclaude.cli.command import Clock

Reply = tuple[int, str]


class RecordedCommands:
    """Replaces launchctl and systemctl; `lines` are the commands that were run, oldest first."""

    def __init__(self, reply: Callable[[str], Reply]) -> None:
        self.lines: list[str] = []
        self._reply = reply

    def __call__(self, command: Sequence[str]) -> CompletedProcess[str]:
        line = " ".join(command)
        self.lines.append(line)
        code, text = self._reply(line)
        return CompletedProcess(command, code, stdout=text, stderr="" if code == 0 else text)

    def changes(self) -> list[str]:
        """The commands that change something, without those that only read."""
        return [line for line in self.lines if " print " not in line and " show " not in line]


class FakeTime:
    """A clock that moves only when its `sleep` is called."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.seconds, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds
