"""A runner that records platform commands and answers them from a script."""

from collections.abc import Callable, Sequence
from subprocess import CompletedProcess

from anyclaude.cli.command import Clock

Reply = tuple[int, str]


class RecordedCommands:
    """Stands where launchctl and systemctl would; `asked` holds what was run, oldest first."""

    def __init__(self, reply: Callable[[str], Reply]) -> None:
        self.asked: list[str] = []
        self._reply = reply

    def __call__(self, command: Sequence[str]) -> CompletedProcess[str]:
        line = " ".join(command)
        self.asked.append(line)
        code, text = self._reply(line)
        return CompletedProcess(command, code, stdout=text, stderr="" if code == 0 else text)

    def changes(self) -> list[str]:
        """What was asked, questions left out."""
        return [line for line in self.asked if " print " not in line and " show " not in line]


class FakeTime:
    """A clock that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.seconds, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds
