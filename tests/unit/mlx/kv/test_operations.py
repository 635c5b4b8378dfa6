"""Pins and verification, tested on the store itself."""

import random
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from anyclaude.mlx.kv.operations import PinnedTooMuchError, pin, pinned_bytes
from anyclaude.mlx.kv.tree import Content, Node
from anyclaude.mlx.kv.verify import Findings, Verification
from anyclaude.mlx.kv_disk import DiskTier
from anyclaude.mlx.tokens import token_array
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import Bench, bench, fresh, same, words

BUDGET_BYTES = 1 << 30


def spoken(engine: Bench, count: int) -> list[list[int]]:
    rng = random.Random(1)
    prompts = [words(rng, 120) for _ in range(count)]
    for number, prompt in enumerate(prompts):
        engine.start(prompt, f"s{number}").answer()
    return prompts


def test_eviction_takes_pinned_segments_last() -> None:
    """If only one conversation fits, the pinned one stays although it is the oldest."""
    probe = bench(tiny.Family.DENSE)
    spoken(probe, 1)
    engine = bench(tiny.Family.DENSE, 3 * probe.engine.store.budget.nbytes, live_idle_seconds=-1)
    store = engine.engine.store
    first, *_ = spoken(engine, 1)
    (lineage,) = store.lineages()
    assert lineage.tip is not None
    pin(store, lineage.tip, pinned=True)
    spoken(engine, 30)
    assert store.budget.evictions > 0
    assert engine.start(first, "s0").answer().reused == len(first) - 1


def test_pinning_too_much_changes_nothing() -> None:
    """A pin beyond the limit is refused with both numbers and changes nothing."""
    engine = bench(tiny.Family.DENSE, 100_000, live_idle_seconds=-1)
    store = engine.engine.store
    engine.start(words(random.Random(2), 250), "a").answer()
    (lineage,) = store.lineages()
    assert lineage.tip is not None
    with pytest.raises(PinnedTooMuchError, match=str(store.pinned_limit_bytes)):
        pin(store, lineage.tip, pinned=True)
    assert pinned_bytes(store) == 0


def test_unpinning_leaves_what_others_build_on() -> None:
    """The trunk of two pinned branches stays pinned until both are unpinned."""
    engine, rng = bench(tiny.Family.DENSE), random.Random(3)
    trunk = words(rng, 100)
    for name in ("a", "b"):
        engine.start(trunk + words(rng, 50), name).answer()
    store = engine.engine.store
    tips = [lineage.tip for lineage in store.lineages()]
    for tip in tips:
        pin(store, tip, pinned=True)
    pin(store, tips[0], pinned=False)
    assert [node.pinned for node in tips[0].path()][-1] is False
    assert all(node.pinned for node in tips[1].path())
    pin(store, tips[1], pinned=False)
    assert pinned_bytes(store) == 0


def test_a_pin_outlives_a_restart(tmp_path: Path) -> None:
    """A pin is stored with its records and survives a restart."""
    for is_second in (False, True):
        disk = DiskTier(tmp_path, "model", BUDGET_BYTES)
        engine = bench(tiny.Family.DENSE, disk=disk)
        if not is_second:
            spoken(engine, 1)
            disk.flush()
            pin(engine.engine.store, engine.engine.store.lineages()[0].tip, pinned=True)
        else:
            assert all(node.pinned for node in engine.engine.store.tree.nodes())
        disk.close()


@pytest.mark.parametrize("family", tiny.Family)
def test_verification_agrees_with_what_was_kept(family: tiny.Family) -> None:
    """Segments recomputed in other chunks are bit-equal, for every kind of layer."""
    engine = bench(family, live_idle_seconds=-1)
    prompts = spoken(engine, 3)
    found = _verified(engine)
    nodes = list(engine.engine.store.tree.nodes())
    assert found.exact
    assert found.segments == len(nodes)
    assert found.computed_tokens >= sum(map(len, prompts))
    assert found.wrong == []


@pytest.mark.parametrize("tier", ["memory", "disk"])
def test_verification_finds_a_wrong_segment(tier: str, tmp_path: Path) -> None:
    """One changed number is found and its segment removed; the prompt is computed again."""
    disk = DiskTier(tmp_path, "model", BUDGET_BYTES)
    engine = bench(tiny.Family.DENSE, live_idle_seconds=-1, disk=disk)
    prompts = spoken(engine, 2)
    store = engine.engine.store
    node = store.tree.match(token_array(prompts[0])).nodes[0]
    assert node.arrays is not None
    node.content = Content([tuple(array + 1e-3 for array in leaf) for leaf in node.arrays])
    if tier == "disk":
        store.storage.save(node, node.token_ids(), store.lineages()[0].key)
        disk.flush()
        node.content = None
    run = engine.engine.verification(0)
    while run.step():
        pass
    assert run.findings.wrong == [node.name]
    answer = engine.start(prompts[0], "s0").answer()
    assert answer.reused == 0
    assert same(answer, fresh(tiny.Family.DENSE, prompts[0]))
    assert engine.start(prompts[1], "s1").answer().reused == len(prompts[1]) - 1
    disk.close()


def _verified(engine: Bench, *, exact: bool = True) -> Findings:
    """What a verification of everything finds."""
    store = engine.engine.store
    run = Verification(engine.model, store, chunk_tokens=64, max_tokens=0, exact=exact)
    while run.step():
        pass
    return run.findings


def _largest(engine: Bench) -> Node:
    return max(engine.engine.store.tree.nodes(), key=lambda node: node.end - node.start)


def _requantised(node: Node, bits: int, change: Callable[[mx.array], mx.array]) -> None:
    """Changes a segment's keys and values, which are dequantised and quantised again if need be."""
    assert node.arrays is not None

    def changed(arrays: tuple[mx.array, ...]) -> tuple[mx.array, ...]:
        if not bits:
            return tuple(map(change, arrays))
        parts = (mx.dequantize(*arrays[at : at + 3], bits=bits) for at in (0, 3))
        return tuple(array for part in parts for array in mx.quantize(change(part), bits=bits))

    node.content = Content([changed(arrays) for arrays in node.arrays])


def _noisy(values: mx.array) -> mx.array:
    """Noise of 0.1 %, as other kernels give."""
    return values * (1 + 1e-3 * mx.random.normal(values.shape))


def _half_zeroed(values: mx.array) -> mx.array:
    return mx.concatenate([values[..., :60, :], mx.zeros_like(values[..., 60:, :])], axis=2)


def _shifted(values: mx.array) -> mx.array:
    return mx.roll(values, 1, axis=2)


def _foreign(values: mx.array) -> mx.array:
    """The same numbers at other tokens, as if another prompt had been stored."""
    return values[..., ::-1, :]


@pytest.mark.parametrize("kv_bits", [0, 8, 4])
def test_noise_is_not_damage_where_bits_may_differ(kv_bits: int) -> None:
    """Off the CPU, noise of 0.1 % in the KV is measured, and is not reported."""
    engine = bench(tiny.Family.WIDE, kv_bits=kv_bits, live_idle_seconds=-1)
    spoken(engine, 2)
    _requantised(_largest(engine), kv_bits, _noisy)
    found = _verified(engine, exact=False)
    assert (found.wrong, found.differing) == ([], [])
    assert found.segments == sum(1 for _ in engine.engine.store.tree.nodes())
    assert 0 < found.error < 0.05


@pytest.mark.parametrize("change", [_half_zeroed, _shifted, _foreign])
@pytest.mark.parametrize("kv_bits", [0, 8, 4])
def test_damage_is_reported_and_kept_where_bits_may_differ(
    kv_bits: int, change: Callable[[mx.array], mx.array]
) -> None:
    """Off the CPU, zeroed, shifted and foreign KV is reported, and nothing leaves the tree."""
    engine = bench(tiny.Family.WIDE, kv_bits=kv_bits, live_idle_seconds=-1)
    prompts = spoken(engine, 2)
    node = _largest(engine)
    before = list(engine.engine.store.tree.nodes())
    _requantised(node, kv_bits, change)
    found = _verified(engine, exact=False)
    assert (found.wrong, found.differing) == ([], [node.name])
    assert list(engine.engine.store.tree.nodes()) == before
    assert engine.start(prompts[0], "s0").answer().reused == len(prompts[0]) - 1


def test_the_noise_floor_comes_from_other_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose steps are off by 3 %: kept KV is off by as much as fresh runs are apart."""
    engine = bench(tiny.Family.WIDE, live_idle_seconds=-1, model=tiny.build(tiny.Family.WIDE, 300))
    embed = engine.model.model.embed_tokens
    exactly = type(embed).__call__

    def inexactly(self: object, tokens: mx.array) -> mx.array:
        values = exactly(self, tokens)
        return values * (1 + 0.03 * mx.random.normal(values.shape))

    monkeypatch.setattr(type(embed), "__call__", inexactly)
    spoken(engine, 2)
    found = _verified(engine, exact=False)
    assert found.differing == []
    assert found.noise_floor > 0.01
    assert found.error < 2 * found.noise_floor
