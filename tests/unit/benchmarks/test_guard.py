"""The guard of the benchmarks: it passes what is as usual and names what has regressed."""

import pytest

from benchmarks.guard import BOUNDS, Bound, report
from benchmarks.rivals.page import OURS
from benchmarks.rivals.rounds import Results, Sample


def _results(**cpu_seconds: float) -> Results:
    """Reuse costs a thirtieth of a cold request, and each token of a stream the same."""
    results = Results()
    for row in {row for bound in BOUNDS for row in (bound.dear, bound.cheap)}:
        usual = 1.0 if row == "cold" or row.startswith("decode") else 1 / 30
        results.add(row, OURS, Sample(1.0, cpu_seconds.get(row, usual)))
    return results


def test_the_usual_ratios_pass() -> None:
    """Nothing is named, also where a request took less than a tick of the clock."""
    assert report(_results()) == []
    assert report(_results(**{"next turn": 0.0})) == []


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_a_lost_ratio_is_named(bound: Bound) -> None:
    """Where a follow-up costs as much as a cold request, that row alone is named."""
    lost = {bound.cheap: 2.1}

    assert report(_results(**lost)) == [bound.name]
