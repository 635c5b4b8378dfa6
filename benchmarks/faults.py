"""Kills processes of a real service under four conversations, and compares every answer.

    python -m benchmarks.faults [--kills N] [--seed N] [--processes NAMES] [--write PAGE]

`--processes mlx,frontend,relay,daemon` is the default. After a kill of the daemon the benchmark
starts the next one, as launchd and systemd do. `--write docs/reliability.md` replaces the rows of
these processes in the table of that page.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.pages import section, write_section
from tests.faults.disturbed import Result, disturb

_COLUMNS: Final = (
    *("Killed", "Kills", "Seed", "Requests in flight", "Connections that ended"),
    *("Sent again", "Answers in all", "Different or failed"),
    *("Ready again, p50", "p99", "Read from disk"),
)
_HEAD: Final = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", default="mlx,frontend,relay,daemon")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    rows, failures = [], []
    for process in given.processes.split(","):
        with tempfile.TemporaryDirectory(dir="/tmp", prefix="ac-") as folder:
            result = disturb(Path(folder), process, given.kills, given.seed)
        rows.append(_row(process, given.seed, result))
        failures += result.failures
        sys.stdout.write(_HEAD + rows[-1])
    if given.write:
        _write(given.write, rows)
    if failures:
        raise SystemExit("\n".join(failures))


def _write(page: Path, rows: list[str]) -> None:
    """Replaces the rows of the same processes, and leaves those of others."""
    old = section(page, "make faults").splitlines(keepends=True)[2:]
    table = {_process(row): row for row in [*old, *rows]}
    write_section(page, "make faults", _HEAD + "".join(table.values()))


def _process(row: str) -> str:
    return row.split("|")[1].strip()


def _row(process: str, seed: int, result: Result) -> str:
    times = sorted(result.recovery_seconds)
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    cells = (
        *(process, result.kills, seed, result.in_flight, result.cut),
        *(result.sent_again, result.answers),
    )
    reused = f"{result.reused:.0%}" if result.restarted_prompt_tokens else ""
    counts = " | ".join(str(cell) for cell in cells)
    return f"| {counts} | {len(result.failures)} | {p50:.1f} s | {p99:.1f} s | {reused} |\n"


if __name__ == "__main__":
    main()
