"""Processes that are killed while they write, for the crash tests.

Run as a module it reads one line of JSON per victim: folder, step of writing and scenario. It
forks, so that a victim need not start an interpreter, and writes the victim's pid, then the number
of the signal that ended the victim. MLX is used in the forked processes only.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from anyclaude.mlx.kv_disk import DiskTier, Point, Segment
from tests.unit.mlx.kv_disk import records as disk

LOAD = "load"
LOAD_NAMES = [f"{number:02x}" for number in range(32)]
LOAD_SEEDS = (1, 2)


class Victims:
    """The process that forks victims."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def start(self, folder: Path, point: str, scenario: str) -> int:
        """Starts a victim that kills itself at `point`, if there is one; returns its pid."""
        assert self._process.stdin is not None
        print(json.dumps([str(folder), point, scenario]), file=self._process.stdin, flush=True)
        return self._line()

    def signal_of_the_end(self) -> int:
        return self._line()

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


@contextmanager
def victims() -> Iterator[Victims]:
    command = [sys.executable, "-m", "tests.unit.mlx.kv_disk.victim"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Victims(process)


def load_segment(name: str, seed: int) -> Segment:
    """Records in chains of four, whose content is derived from name and seed."""
    number = int(name, 16)
    parent = LOAD_NAMES[number - 1] if number % 4 else ""
    floats = 50 + 700 * (number % 3)
    return disk.segment(name, parent, start=8 * (number % 4), floats=floats, seed=seed)


def _load(tier: DiskTier, dice: random.Random) -> None:
    """Saves, replaces, touches, pins and removes without end."""
    while True:
        name = dice.choice(LOAD_NAMES)
        match dice.randrange(8):
            case 0:
                tier.touch([name])
            case 1:
                tier.pin([name], dice.random() < 0.3)
            case 2:
                tier.remove([name])
            case _:
                tier.save(load_segment(name, dice.choice(LOAD_SEEDS)))
        if dice.random() < 0.3:
            tier.flush(20)


def _live(folder: Path, point: str, scenario: str) -> None:
    armed = False

    def reach(reached: Point) -> None:
        if armed and reached.name == point:
            os.kill(os.getpid(), signal.SIGKILL)

    with disk.tier(folder, failpoint=reach, budget_bytes=disk.budget_of(scenario)) as tier:
        armed = True
        if scenario == LOAD:
            _load(tier, random.Random(os.getpid()))
        disk.act(tier, scenario)
        tier.flush(20)


def main() -> None:
    for line in sys.stdin:
        folder, point, scenario = json.loads(line)
        pid = os.fork()
        if not pid:
            with suppress(BaseException):
                _live(Path(folder), point, scenario)
            os._exit(0)
        print(pid, flush=True)
        print(os.WTERMSIG(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
