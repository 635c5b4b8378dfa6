"""Kills processes of a real service under four conversations, and compares every answer.

    python -m benchmarks.faults [--kills N] [--seed N] [--processes NAMES] [--write PAGE]

`--processes mlx,frontend,relay` is the default. `--write docs/reliability.md` replaces the table at
the end of that page.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.faults.disturbed import Result, disturb, disturbed_service

_MARK: Final = "<!-- make faults -->\n"
_COLUMNS: Final = (
    *("Killed", "Kills", "Seed", "Requests in flight", "Connections that ended"),
    *("529 while no worker ran", "Answers in all", "Different or failed"),
    *("Ready again, p50", "p99"),
)
_HEAD: Final = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", default="mlx,frontend,relay")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    rows, failures = [], []
    for process in given.processes.split(","):
        with tempfile.TemporaryDirectory() as folder, disturbed_service(Path(folder)) as service:
            result = disturb(service, process, given.kills, given.seed)
        rows.append(_row(process, given.seed, result))
        failures += result.failures
        sys.stdout.write(_HEAD + rows[-1])
    if given.write:
        before = given.write.read_text().partition(_MARK)[0]
        given.write.write_text(before + _MARK + _HEAD + "".join(rows))
    if failures:
        raise SystemExit("\n".join(failures))


def _row(process: str, seed: int, result: Result) -> str:
    times = sorted(result.recovery_seconds)
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    cells = (
        *(process, result.kills, seed, result.in_flight, result.cut),
        *(result.refused, result.answers),
    )
    counts = " | ".join(str(cell) for cell in cells)
    return f"| {counts} | {len(result.failures)} | {p50:.1f} s | {p99:.1f} s |\n"


if __name__ == "__main__":
    main()
