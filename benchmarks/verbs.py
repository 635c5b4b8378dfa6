"""Times the commands of `anyclaudectl` with a running service: medians of ten, wall and processor.

    python -m benchmarks.verbs [--before CHECKOUT]

With --before, those of another checkout run in alternation, with the same service and libraries.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.checkout import ROOT
from tests.integration.service import Service

_RUNS: Final = 10
_FOLDERS: Final = ("ctl", "daemon", "protos", "workers")
_VERBS: Final = (
    *("--help", "status --help", "--version", "version", "status", "wait --ready", "mode", "env"),
    *(
        "cache list",
        "cache tree",
        "cache prune --all",
        "requests",
        "metrics",
        "metrics --prometheus",
    ),
    *("top --count 1", "statusline", "worker list", "logs -n 5", "reload --dry-run", "doctor"),
    *("config show", "config path", "config check", "model list", "model recommend"),
    *("completion bash", "service status"),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path)
    given = parser.parse_args()
    checkouts = {"before": given.before.resolve()} if given.before else {}
    with Service() as service:
        service.ready()
        environs = {
            name: service.environ | {"PYTHONPATH": _path(checkout)}
            for name, checkout in (checkouts | {"now": ROOT}).items()
        }
        print("| Command |", " | ".join(f"{name} | processor" for name in environs), "|")
        print("|---|" + "---|---|" * len(environs))
        for verb in _VERBS:
            print(f"| `{verb}` |", " | ".join(_times(verb, environs)), "|", flush=True)


def _path(checkout: Path) -> str:
    return os.pathsep.join(str(checkout / folder) for folder in _FOLDERS)


def _times(verb: str, environs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The median wall and processor time of each checkout's command; `-` where it has none."""
    samples = [[_once(verb, environ) for environ in environs.values()] for _ in range(_RUNS)]
    return [_median(column) for column in zip(*samples, strict=True)]


def _median(column: "tuple[tuple[float, float] | None, ...]") -> str:
    known = [sample for sample in column if sample]
    if not known:
        return "- | -"
    wall, cpu = (statistics.median(values) for values in zip(*known, strict=True))
    return f"{wall * 1000:.0f} ms | {cpu * 1000:.0f} ms"


def _once(verb: str, environ: Mapping[str, str]) -> tuple[float, float] | None:
    """Seconds of one run by the clock and on the processors; None if it does not know the verb."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "anyclaude.cli", *verb.split()],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    return None if process.returncode == 2 else (seconds, used.ru_utime + used.ru_stime)


if __name__ == "__main__":
    main()
