"""The disk tier's budget: it is never exceeded, and the right records are evicted."""

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from anyclaude.mlx.kv_disk import Point, Segment
from tests.figures import FIGURES, RecordProperty
from tests.unit.mlx.kv_disk import records as disk

# The bytes of one record of 1,000 pairs of floats, its header included.
RECORD_FLOATS = 1000
RECORD_BYTES = 1024 + 10 * RECORD_FLOATS


def _room_for(records: int) -> int:
    """A budget for that many records, and not for one more."""
    return records * RECORD_BYTES + 5000


def _saved(tier: disk.Tier, clock: disk.Clock, name: str, parent: str = "", **more: bool) -> bool:
    clock.now += 1
    return tier.save(disk.segment(name, parent, floats=RECORD_FLOATS, **more), wait=True)


def test_the_least_recently_used_leaf_is_evicted_first():
    """Leaves are evicted by last use; never a parent before its children, never a pinned one."""
    clock = disk.Clock()
    with disk.folder() as path, disk.tier(path, clock=clock, budget_bytes=_room_for(4)) as tier:
        assert _saved(tier, clock, "a1")
        assert _saved(tier, clock, "a2", "a1")
        assert _saved(tier, clock, "b1", pinned=True)
        assert _saved(tier, clock, "c1")
        clock.now += 1
        tier.touch(["a2"])
        assert _saved(tier, clock, "d1")
        assert set(disk.ids(tier)) == {"a1", "a2", "b1", "d1"}
        assert _saved(tier, clock, "d2", "d1")
        assert set(disk.ids(tier)) == {"a1", "b1", "d1", "d2"}
        assert _saved(tier, clock, "e1")
        assert set(disk.ids(tier)) == {"b1", "d1", "d2", "e1"}
        assert tier.status().evicted == 3


def test_pinned_records_are_never_evicted():
    """If all records are pinned a save is refused and counted."""
    clock = disk.Clock()
    with disk.folder() as path, disk.tier(path, clock=clock, budget_bytes=_room_for(2)) as tier:
        assert _saved(tier, clock, "a1", pinned=True)
        assert _saved(tier, clock, "b1", pinned=True)
        assert not _saved(tier, clock, "c1")
        assert tier.status().skipped_writes == 1
        assert "pinned" in tier.status().last_error
        assert tier.status().failed_writes == 0
        tier.pin(["a1"], False)
        assert _saved(tier, clock, "c1")
        assert set(disk.ids(tier)) == {"b1", "c1"}


def test_a_record_never_evicts_its_own_prefix():
    """A record's ancestors are never evicted for it; the record is refused instead."""
    clock = disk.Clock()
    with disk.folder() as path, disk.tier(path, clock=clock, budget_bytes=_room_for(2)) as tier:
        assert _saved(tier, clock, "a1")
        assert _saved(tier, clock, "b1")
        assert _saved(tier, clock, "a2", "a1")
        assert disk.ids(tier) == ["a1", "a2"]
        assert not _saved(tier, clock, "a3", "a2")
        assert disk.ids(tier) == ["a1", "a2"]


def test_other_models_are_evicted_first():
    """Records of other fingerprints, also pinned or new, are evicted before this model's."""
    clock = disk.Clock()
    with disk.folder() as path:
        budget = _room_for(3)
        with disk.tier(path, clock=clock, budget_bytes=budget) as tier:
            assert _saved(tier, clock, "a1")
        with disk.tier(path, clock=clock, budget_bytes=budget, fingerprint="0ther") as tier:
            assert tier.records() == []
            assert tier.load("a1") is None
            assert _saved(tier, clock, "b1", pinned=True)
            assert _saved(tier, clock, "b2")
        with disk.tier(path, clock=clock, budget_bytes=budget) as tier:
            assert disk.ids(tier) == ["a1"]
            assert _saved(tier, clock, "a2")
            assert _saved(tier, clock, "a3")
            assert set(disk.ids(tier)) == {"a1", "a2", "a3"}
        assert not (path / "kv" / "0ther").exists()


def test_a_smaller_budget_is_met_at_opening():
    """Opening a folder with a smaller budget evicts down to it first."""
    clock = disk.Clock()
    with disk.folder() as path:
        with disk.tier(path, clock=clock) as tier:
            for number in range(10):
                assert _saved(tier, clock, f"{number:02x}")
        with disk.tier(path, clock=clock, budget_bytes=_room_for(3)) as tier:
            assert set(disk.ids(tier)) == {"07", "08", "09"}
            assert disk.bytes_on_disk(path) <= _room_for(3)


def test_too_large_a_segment_is_refused_at_once():
    """A segment larger than the budget is skipped and evicts nothing."""
    clock = disk.Clock()
    with disk.folder() as path, disk.tier(path, clock=clock, budget_bytes=_room_for(2)) as tier:
        assert _saved(tier, clock, "a1")
        assert not tier.save(disk.segment("b1", floats=50_000))
        assert "budget" in tier.status().last_error
        assert disk.ids(tier) == ["a1"]


def test_the_write_under_way_is_counted():
    """The reported bytes include a half-written record."""
    seen: list[tuple[int, int]] = []
    with disk.folder() as path:

        def reach(_point: Point) -> None:
            seen.append((disk.bytes_on_disk(path), tier.status().nbytes))

        with disk.tier(path, failpoint=reach) as tier:
            assert tier.save(disk.segment("ab", floats=100_000), wait=True)
        assert max(on_disk for on_disk, _ in seen) > 1_000_000
        assert all(on_disk <= counted for on_disk, counted in seen)


class RandomLoad(RuleBasedStateMachine):
    """Any order of calls against a dict of what was saved.

    The tier may forget what is not pinned, but only as its rules allow; it never returns anything
    else than what was saved, and at every step of every write the folder is within its budget.
    """

    BUDGET = 300_000
    NAMES = tuple(f"{number:02x}" for number in range(24))

    def __init__(self) -> None:
        super().__init__()
        self.clock = disk.Clock()
        self.scope = disk.folder()
        self.path = self.scope.__enter__()
        self.saved: dict[str, Segment] = {}
        self.pinned: set[str] = set()
        self.most_bytes = 0
        self.tier = self.opened()

    def opened(self) -> disk.Tier:
        return disk.Tier(
            self.path / "kv",
            disk.FINGERPRINT,
            self.BUDGET,
            clock=self.clock,
            bounds=disk.BOUNDS,
            failpoint=self.reach,
        )

    def reach(self, _point: Point) -> None:
        used = disk.bytes_on_disk(self.path)
        self.most_bytes = max(self.most_bytes, used)

    @rule(
        number=st.integers(0, 23),
        parent=st.integers(0, 23),
        floats=st.sampled_from([0, 100, 2000, 6000]),
        tokens=st.sampled_from([1, 500]),
        pinned=st.sampled_from([False, False, False, True]),
        wait=st.booleans(),
    )
    def save(self, number, parent, floats, tokens, pinned, wait):
        name = self.NAMES[number]
        known = self.saved.get(name)
        if known is not None and self.tier.holds(name):
            saved = Segment(**(vars(known) | {"pinned": pinned}))
        else:
            # A parent has a smaller number, so no record hangs on itself.
            above = self.NAMES[parent] if parent < number else ""
            saved = disk.segment(name, above, floats=floats, tokens=tokens, pinned=pinned)
        self.clock.now += 1
        if self.tier.save(saved, wait=wait):
            self.saved[name] = saved
            if pinned:
                self.pinned.add(name)
        if wait:
            assert self.tier.status().failed_writes == 0

    @rule(number=st.integers(0, 23))
    def load(self, number):
        name = self.NAMES[number]
        self.clock.now += 1
        loaded = self.tier.load(name)
        if loaded is not None:
            assert disk.same(loaded, self.saved[name])

    @rule(numbers=st.sets(st.integers(0, 23), max_size=5))
    def touch(self, numbers):
        self.clock.now += 1
        self.tier.touch(self.NAMES[number] for number in numbers)

    @rule(numbers=st.sets(st.integers(0, 23), max_size=3), pinned=st.booleans())
    def pin(self, numbers, pinned):
        names = [self.NAMES[number] for number in numbers]
        self.tier.pin(names, pinned)
        stored = {name for name in names if self.tier.holds(name)}
        self.pinned = self.pinned | stored if pinned else self.pinned - set(names)

    @rule(number=st.integers(0, 23))
    def remove(self, number):
        before = {record.record_id: record for record in self.tier.records()}
        freed = self.tier.remove([self.NAMES[number]])
        after = set(disk.ids(self.tier))
        gone = before.keys() - after
        assert freed == sum(before[name].nbytes for name in gone)
        assert not self.tier.holds(self.NAMES[number])
        for name in gone | {self.NAMES[number]}:
            self.pinned.discard(name)

    @precondition(lambda self: self.saved)
    @rule()
    def reopen(self):
        self.tier.close()
        before = self.tier.records()
        self.tier = self.opened()
        described = {_facts(record) for record in self.tier.records()}
        assert described == {_facts(record) for record in before}
        assert self.tier.status().orphans == 0

    @invariant()
    def whole(self):
        """Parents come first and are there; what is pinned and was written is there."""
        seen = {""}
        for record in self.tier.records():
            assert record.parent_id in seen
            seen.add(record.record_id)
            assert record.token_ids.tolist() == self.saved[record.record_id].token_ids.tolist()

    @invariant()
    def within_budget(self):
        assert self.most_bytes <= self.BUDGET

    @rule()
    def settled(self):
        assert self.tier.flush(20)
        status = self.tier.status()
        assert status.nbytes == disk.bytes_on_disk(self.path) <= self.BUDGET
        assert (status.quarantined, status.failed_writes) == (0, 0)
        assert status.pending_bytes == 0
        pinned = {record.record_id for record in self.tier.records() if record.pinned}
        assert pinned <= self.pinned

    def teardown(self) -> None:
        self.tier.close()
        self.scope.__exit__(None, None, None)


def _facts(record):
    return (record.record_id, record.parent_id, record.last_use, record.pinned, record.nbytes)


TestRandomLoad = RandomLoad.TestCase
TestRandomLoad.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_every_byte_is_counted_while_many_are_written(record_property: RecordProperty):
    """During 200 saves the file system never shows more than the budget."""
    most = [0]

    def reach(_point: Point) -> None:
        most[0] = max(most[0], disk.bytes_on_disk(path))

    clock = disk.Clock()
    budget = _room_for(6)
    with (
        disk.folder() as path,
        disk.tier(path, clock=clock, budget_bytes=budget, failpoint=reach) as tier,
    ):
        for number in range(200):
            clock.now += 1
            parent = f"{number - 1:04x}" if number % 3 and tier.holds(f"{number - 1:04x}") else ""
            assert tier.save(disk.segment(f"{number:04x}", parent, floats=RECORD_FLOATS))
            if number % 10 == 9:
                assert tier.flush(20)
        assert tier.flush(20)
        status = tier.status()
        assert status.written + status.skipped_writes == 200
        assert status.written > 190
    record_property(
        FIGURES, f"cache folder, 200 records over its budget: {most[0]} of {budget} bytes"
    )
    assert most[0] <= budget
