"""A crash at any step of writing leaves the old state or the complete new one."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from anyclaude.mlx.kv_disk import DiskState, Point, Segment
from tests.figures import FIGURES, RecordProperty
from tests.unit.mlx.kv_disk import records as disk
from tests.unit.mlx.kv_disk.victim import (
    LOAD,
    LOAD_NAMES,
    LOAD_SEEDS,
    Victims,
    load_segment,
    victims,
)

SEED = 20_261_129
KILLS = 180
PATIENCE_SECONDS = 60
REMOVING = {Point.UNLINKED}
CASES = [
    (scenario, point)
    for scenario in ("add", "replace", "evict")
    for point in Point
    if point not in REMOVING or scenario == "evict"
]
# From this step on the new record is complete under its name.
COMPLETE = {Point.RENAMED, Point.FOLDER_SYNCED}


class Crash(BaseException):
    """Simulates the end of the process; nothing in the product may catch it."""


def _prepared(path: Path) -> None:
    clock = disk.Clock()
    clock.now -= 1000
    with disk.tier(path, clock=clock) as tier:
        for saved in disk.before().values():
            assert tier.save(saved, wait=True)
            clock.now += 1


def _at(point: Point, act: Callable[[], None]) -> Callable[[Point], None]:
    def reach(reached: Point) -> None:
        if reached is point:
            act()

    return reach


def _raise(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def _check_state(path: Path, scenario: str, point: Point) -> None:
    """Opens the folder and compares all of it with the old and the new state."""
    old, new = disk.before(), disk.after(scenario)
    if scenario == "evict":
        # The evicted record is deleted before the new one is written.
        del old["0d"]
    with disk.tier(path) as tier:
        expected = new if point in COMPLETE else old
        assert set(disk.ids(tier)) == set(expected)
        for name, saved in expected.items():
            assert disk.same(tier.load(name), saved), (name, point)
        assert tier.flush(PATIENCE_SECONDS)
        status = tier.status()
        assert (status.quarantined, status.orphans, status.last_error) == (0, 0, "")
        assert not list(path.rglob("*.tmp"))
        assert status.nbytes == disk.bytes_on_disk(path)
        # The writer continues normally.
        disk.act(tier, scenario)
        assert tier.flush(PATIENCE_SECONDS)
        for name, saved in new.items():
            assert disk.same(tier.load(name), saved)


@pytest.mark.parametrize(("scenario", "point"), CASES)
def test_an_unexpected_end_of_the_writer(
    scenario: str, point: Point, record_property: RecordProperty
):
    """If the writer dies at a step, the tier reports it and refuses; the next opening is whole."""
    told: list[bool] = []
    with disk.folder() as path:
        _prepared(path)
        reach = _at(point, _raise(Crash(point.name)))
        armed = [False]

        def armed_reach(reached: Point) -> None:
            if armed[0]:
                reach(reached)

        budget = disk.budget_of(scenario)
        with capture_logs(), disk.tier(path, budget_bytes=budget, failpoint=armed_reach) as tier:
            armed[0] = True
            disk.act(tier, scenario)
            assert tier.flush(PATIENCE_SECONDS) in (True, False)
            assert tier.status().state is DiskState.STOPPED
            assert point.name in tier.status().last_error
            assert not tier.save(disk.segment("ff"), told.append)
            assert told == []
        _check_state(path, scenario, point)
    record_property(FIGURES, "the writer ended at a step of writing: 0 records lost or wrong")


@pytest.fixture(scope="module")
def killed() -> Iterator[Victims]:
    with victims() as running:
        yield running


@pytest.mark.parametrize(("scenario", "point"), CASES)
def test_a_killed_process(
    scenario: str, point: Point, killed: Victims, record_property: RecordProperty
):
    """After SIGKILL at any step, the next process finds the old or the new state, whole."""
    with disk.folder() as path:
        _prepared(path)
        killed.start(path, point.name, scenario)
        assert killed.signal_of_the_end() == signal.SIGKILL
        _check_state(path, scenario, point)
    record_property(FIGURES, "SIGKILL at a step of writing: 0 records lost or wrong")


def test_processes_killed_at_any_moment(killed: Victims, record_property: RecordProperty):
    """After each of 180 SIGKILLs at random moments, every record found is whole and right."""
    dice, found = random.Random(SEED), 0
    contents = {name: [load_segment(name, seed) for seed in LOAD_SEEDS] for name in LOAD_NAMES}
    with disk.folder() as path:
        for number in range(KILLS):
            pid = killed.start(path, "", LOAD)
            if number == 0:
                _wait_for_a_record(path)
            time.sleep(dice.uniform(0.01, 0.06))
            os.kill(pid, signal.SIGKILL)
            assert killed.signal_of_the_end() == signal.SIGKILL
            assert disk.bytes_on_disk(path) <= disk.budget_of(LOAD)
            with disk.tier(path, budget_bytes=disk.budget_of(LOAD)) as tier:
                for record in tier.records():
                    loaded = tier.load(record.record_id)
                    assert any(disk.same(loaded, one) for one in contents[record.record_id])
                    found += 1
                status = tier.status()
                assert (status.quarantined, status.orphans, status.last_error) == (0, 0, "")
                assert not list(path.rglob("*.tmp"))
    assert found > KILLS // 4
    record_property(
        FIGURES, f"{KILLS} SIGKILLs at random moments: {found} records read back, 0 lost or wrong"
    )


def _wait_for_a_record(path: Path) -> None:
    """Returns once the process has written one, however slow the machine is."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not list(path.rglob("*.safetensors")):
        assert time.monotonic() < end, "nothing was written"
        time.sleep(0.01)


@pytest.mark.parametrize("point", [point for point in Point if point not in REMOVING])
def test_an_error_of_the_disk_leaves_no_trace(point: Point, record_property: RecordProperty):
    """EIO at a step is counted and shown, leaves no partial file, and later writes work."""
    clock = disk.Clock()
    told: list[bool] = []
    failing = [True]

    def reach(reached: Point) -> None:
        if failing[0] and reached is point:
            raise OSError(5, "the disk is on fire")

    with disk.folder() as path, disk.tier(path, clock=clock, failpoint=reach) as tier:
        saved: Segment = disk.segment("ab")
        tier.save(saved, told.append)
        assert tier.flush(PATIENCE_SECONDS)
        status = tier.status()
        assert "on fire" in status.last_error
        assert status.nbytes == disk.bytes_on_disk(path)
        assert not list(path.rglob("*.tmp"))
        if told == [False]:
            assert (status.failed_writes, status.state) == (1, DiskState.FAILING)
            assert tier.load("ab") is None
            assert not tier.save(saved)
            assert tier.status().skipped_writes == 1
        failing[0] = False
        clock.now += disk.BOUNDS.retry_seconds
        assert tier.save(saved, wait=True)
        assert tier.status().state is DiskState.SERVING
        assert disk.same(tier.load("ab"), saved)
    record_property(FIGURES, "the disk failed at a step of writing: seen, 0 bytes left behind")
