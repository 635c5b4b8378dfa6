"""The order in which waiting requests start.

The running ones decode alone, so that one ends after the other and makes room for one.
"""

import random

from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import ALONE, SETTINGS, Request, bench, words


def test_waiting_requests_start_by_class() -> None:
    """A main conversation starts before a subagent, and that before a utility call."""
    it = bench(tiny.Family.DENSE, settings=ALONE)
    for seed in range(SETTINGS.max_running_requests):
        it.start(words(random.Random(seed), 20), f"running-{seed}")
    it.engine.step()
    waiting = {
        "utility": it.start(words(random.Random(100), 20), "u", keep=False),
        "subagent": it.start(words(random.Random(101), 20), "s", agent="agent"),
        "main": it.start(words(random.Random(102), 20), "m"),
        "second main": it.start(words(random.Random(103), 20), "n"),
    }
    started: list[str] = []
    while not all(request.done for request in waiting.values()):
        it.engine.step()
        started += [name for name, request in waiting.items() if _is_new(name, request, started)]
    assert started == ["main", "second main", "subagent", "utility"]


def test_no_class_waits_for_ever() -> None:
    """A utility call that has waited for long enough starts before a new main conversation."""
    it = bench(tiny.Family.DENSE, settings=ALONE)
    for seed in range(SETTINGS.max_running_requests):
        it.start(words(random.Random(seed), 20), f"running-{seed}")
    it.engine.step()
    new = it.start(words(random.Random(101), 20), "m")
    waited = 2 * SETTINGS.class_delay_seconds + 1
    old = it.start(words(random.Random(100), 20), "u", keep=False, waited_seconds=waited)
    while not old.events:
        it.engine.step()
    assert not new.events


def _is_new(name: str, request: Request, started: list[str]) -> bool:
    return bool(request.events) and name not in started
