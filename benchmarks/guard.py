"""Fails if a ratio of this service has regressed: reuse, restart, mode switch, decoding together.

    python -m benchmarks.guard [--forget]

It compares ratios of processor time within one run, so that neither the speed of the machine nor
other programs on it matter. Processor time is counted in steps of 10 ms, so a ratio of about 50 may
be 30 or 70; each bound is a small part of that, and above 1, which is left without the feature.
`--forget` shows that the guard works: it removes all caches before each request, and the guard must
fail.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyclaude.cli.bench.endpoint import Answer, Conversation, Endpoint
from anyclaude.cli.bench.workload import Workload
from benchmarks.rivals.__main__ import SETTINGS, save_model
from benchmarks.rivals.contestants import Contestant, Own, blas_environment
from benchmarks.rivals.page import OURS
from benchmarks.rivals.rounds import Results, Round, Setting

SETTING: Final = Setting("guard", SETTINGS[0].shape, 2_000, 3, 32, 100)
# The resolution of a process's processor time.
_TICK_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Bound:
    """The processor time of `dear` must be at least `ratio` times that of `cheap`."""

    name: str
    dear: str
    cheap: str
    ratio: float


BOUNDS: Final = (
    Bound("reuse in a session", "cold", "next turn", 4),
    Bound("reuse in another session", "cold", "another session", 4),
    Bound("reuse after subagents", "cold", "next turn after the subagents", 4),
    Bound("reuse after a kill", "cold", "next turn after kill and start", 3),
    Bound("reuse after a mode switch", "cold", "next turn after a mode round trip", 4),
    # A token of eight streams must not cost twice as much as one of a single stream.
    Bound("decoding together", "decode, 1 stream", "decode, 8 streams", 0.5),
)


class _Forgetful(Round):
    """The planted regression: no request finds anything in a cache."""

    def _first(self, endpoint: Endpoint, row: str, conversation: Conversation) -> Answer:
        assert isinstance(self._contestant, Own)
        self._contestant.forget()
        return super()._first(endpoint, row, conversation)


def ratios(results: Results, server: str) -> Iterator[tuple[Bound, float]]:
    """The ratio of each bound's rows, as measured."""

    def median(row: str) -> float:
        return statistics.median(sample.cpu_seconds for sample in results.samples[row, server])

    for bound in BOUNDS:
        yield bound, median(bound.dear) / (median(bound.cheap) or _TICK_SECONDS)


def measure(make: Callable[[], Contestant], setting: Setting, kind: type[Round]) -> Results:
    results, workload, contestant = Results(), Workload(), make()
    try:
        contestant.start()
        for number in range(1, setting.rounds + 1):
            print(f"round {number} of {setting.rounds}", flush=True)
            kind(contestant, setting, workload, results).run()
    finally:
        contestant.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--forget", action="store_true", help="plant the regression")
    given = parser.parse_args()
    os.environ.update(blas_environment())
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(Path(folder) / "model", SETTING)
        kind = _Forgetful if given.forget else Round
        results = measure(lambda: Own(model), SETTING, kind)
    broken = report(results)
    if broken:
        raise SystemExit(f"regressed: {', '.join(broken)}")


def report(results: Results) -> list[str]:
    """Prints the ratios; returns the names of those below their bound."""
    broken = []
    print(f"{'ratio':<28}{'measured':>9}{'bound':>7}")
    for bound, ratio in ratios(results, OURS):
        print(f"{bound.name:<28}{ratio:>9.2f}{bound.ratio:>7}")
        if ratio < bound.ratio:
            broken.append(bound.name)
    return broken


if __name__ == "__main__":
    main()
