"""200 random turns for each kind of layer, through memory and disk: bit-equal to a fresh run.

Conversations append, edit anywhere, repeat, fork, begin anew and are cancelled in the middle. The
memory holds about three of them, so segments are evicted to disk all the time; sometimes caches are
pruned, or the process ends and starts again, in order or by a crash in the middle of a write.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import pytest
from structlog.testing import capture_logs

from anyclaude.mlx.kv.operations import Selection, prune
from anyclaude.mlx.kv.tree import Content, SegmentArrays
from anyclaude.mlx.kv_disk import DiskState, DiskTier, Point, pass_by
from tests.figures import FIGURES, RecordProperty
from tests.models import tiny
from tests.unit.mlx.kv.conversations import STABLE, Conversations
from tests.unit.mlx.kv.kv_engine import Bench, bench, is_fresh, words

TURNS = 200
BUDGET_BYTES = 1 << 30


@dataclass(frozen=True)
class Kind:
    """A family of layers and its KV settings."""

    family: tiny.Family
    kv_bits: int = 0

    def __str__(self) -> str:
        return f"{self.family}-{self.kv_bits or 'full'}"


KINDS = [
    Kind(tiny.Family.DENSE),
    Kind(tiny.Family.SLIDING),
    Kind(tiny.Family.HYBRID),
    Kind(tiny.Family.MIXED),
    Kind(tiny.Family.WIDE, kv_bits=8),
]


class Crash(BaseException):
    """Simulates the end of the process in the middle of a write."""


class Fuse:
    """Once lit, ends the disk tier's writer at some step of writing."""

    def __init__(self) -> None:
        self._steps = 0

    def light(self, steps: int) -> None:
        self._steps = steps

    def burn(self, _point: Point) -> None:
        self._steps -= 1
        if self._steps == 0:
            raise Crash


@contextmanager
def engine_on(
    folder: Path, kind: Kind, limit: int = 1 << 30, fuse: Fuse | None = None
) -> Iterator[Bench]:
    disk = DiskTier(folder, "model", BUDGET_BYTES, failpoint=fuse.burn if fuse else pass_by)
    try:
        yield bench(kind.family, limit, kv_bits=kind.kv_bits, live_idle_seconds=5.0, disk=disk)
    finally:
        disk.close()


def memory_for(conversations: int, kind: Kind) -> int:
    probe = bench(kind.family, kv_bits=kind.kv_bits)
    probe.start(words(random.Random(0), 170), "probe").answer()
    return conversations * probe.engine.store.budget.nbytes


def turn(engine: Bench, talk: Conversations, kind: Kind) -> tuple[int, int]:
    """Runs a request, perhaps after a cancelled one; returns the tokens reused and requested."""
    session, prompt = talk.next()
    if talk.rng.random() < 0.2:
        engine.start(prompt, session, stable=STABLE).cancel_after(talk.rng.randrange(1, 6))
    answer = engine.start(prompt, session, stable=STABLE).answer()
    assert is_fresh(answer, kind.family, prompt, kv_bits=kind.kv_bits)
    if talk.rng.random() < 0.7:
        talk.prompts[session] = prompt + answer.tokens
    return answer.reused, len(prompt)


def disturb(engine: Bench, rng: random.Random) -> None:
    """Changes between two turns: drops live caches, evicts segments, prunes sessions."""
    store = engine.engine.store
    match rng.randrange(12):
        case 0 | 1 | 2:
            for lineage in store.lineages():
                lineage.live = None
        case 3:
            # Evict everything that is on disk.
            store.budget.fit(store.budget.limit_bytes)
        case 4:
            prune(store, Selection(session_id=f"s{rng.randrange(4)}"))
        case 5:
            prune(store, Selection(to_bytes=store.budget.nbytes // 2))


@pytest.mark.slow(25)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_cached_equals_fresh_through_every_tier(
    kind: Kind, tmp_path: Path, record_property: RecordProperty
) -> None:
    """Each of 200 answers equals a fresh run, and most tokens are reused."""
    talk, limit = Conversations(2026), memory_for(3, kind)
    done = reused = total = loaded = starts = crashed = 0
    while done < TURNS:
        fuse = Fuse()
        with capture_logs(), engine_on(tmp_path, kind, limit, fuse) as engine:
            ends_at = min(TURNS, done + talk.rng.randrange(5, 30))
            crashes = talk.rng.random() < 0.5
            while done < ends_at:
                if crashes and done == ends_at - 2:
                    fuse.light(talk.rng.randrange(1, 7))
                disturb(engine, talk.rng)
                mine, asked = turn(engine, talk, kind)
                reused, total, done = reused + mine, total + asked, done + 1
                assert engine.engine.store.budget.nbytes <= limit
            # The writer is asynchronous, and may be at any job here.
            engine.disk.flush()
            status = engine.disk.status()
            loaded, crashed = loaded + status.loaded, crashed + (status.state is DiskState.STOPPED)
        starts += 1
    record_property(
        FIGURES,
        f"{kind}: {done} turns equal, {starts} starts, {crashed} crashed, {loaded} records read "
        f"back, {reused} of {total} tokens reused",
    )
    assert min(starts, loaded) > 8
    assert crashed > 1
    assert reused / total > 0.4


STEPS_OF_A_WRITE = 7


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_crash_between_the_parts_of_a_split(kind: Kind, tmp_path: Path) -> None:
    """If the upper part is stored but the whole not yet replaced, the whole is found again."""
    rng, fuse = random.Random(3), Fuse()
    prompt = words(rng, 200)
    with capture_logs(), engine_on(tmp_path, kind, fuse=fuse) as engine:
        engine.start(prompt, "a", stable=200).answer()
        engine.disk.flush()
        fuse.light(STEPS_OF_A_WRITE + 1)
        engine.start(prompt[:110] + words(rng, 30), "b", stable=110).answer()
        engine.disk.flush()
        assert engine.disk.status().state is DiskState.STOPPED
    with engine_on(tmp_path, kind) as engine:
        store = engine.engine.store
        answer = engine.start(prompt, "a", stable=200).answer()
        assert answer.reused >= 160
        assert is_fresh(answer, kind.family, prompt, kv_bits=kind.kv_bits)
        prune(store, Selection(all=True))
        assert list(store.tree.nodes()) == []
    with engine_on(tmp_path, kind) as engine:
        assert list(engine.engine.store.tree.nodes()) == []


def zeroed(arrays: SegmentArrays) -> SegmentArrays:
    """Sets one position of one layer to zero."""
    first, *others = arrays
    mask = mx.arange(first[0].shape[-2])[:, None] != 5
    return [tuple(mx.where(mask, array, mx.zeros_like(array)) for array in first), *others]


def shifted(arrays: SegmentArrays) -> SegmentArrays:
    return [tuple(mx.roll(array, 1, -2) for array in leaf) for leaf in arrays]


@pytest.mark.parametrize("damage", [zeroed, shifted])
@pytest.mark.parametrize("tier", ["memory", "disk"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_wrong_segment_would_be_noticed(
    kind: Kind, tier: str, damage: Callable[[SegmentArrays], SegmentArrays], tmp_path: Path
) -> None:
    """The comparison detects one wrong segment in either tier."""
    rng = random.Random(5)
    prompt = words(rng, 60)
    longer = prompt + words(rng, 10)
    with engine_on(tmp_path, kind) as engine:
        engine.start(prompt, "a").answer()
        store = engine.engine.store
        if tier == "disk":
            store.budget.fit(store.budget.limit_bytes)
            assert not any(node.in_memory for node in store.tree.nodes())
            for node in store.tree.nodes():
                node.content = store.storage.read(node)
                assert node.in_memory
        for lineage in store.lineages():
            lineage.live = None
        first = next(node for node in store.tree.nodes() if not node.start)
        first.content = Content(damage(first.arrays), first.states)
        answer = engine.start(longer, "a").answer()
    assert answer.reused >= 40
    assert not is_fresh(answer, kind.family, longer, kv_bits=kind.kv_bits)
