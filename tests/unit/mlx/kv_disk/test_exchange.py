"""Caches that are exported from one tree and imported into another, for every kind of layer."""

import json
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from anyclaude.cache.v1 import cache_pb2 as pb
from anyclaude.mlx.kv.operations import pin, pinned_bytes
from anyclaude.mlx.kv_disk import DiskTier
from anyclaude.mlx.kv_disk.export_file import ExchangeError, ExportWriter, Fault
from anyclaude.mlx.kv_disk.import_file import opened
from anyclaude.mlx.kv_disk.incoming import Incoming
from anyclaude.mlx.kv_disk.outgoing import Outgoing
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import ANSWER_TOKENS, Bench, bench, fresh, same, words

FINGERPRINT = "f00d"
ALL = pb.ExportCachesRequest()
FAMILIES = [family for family in tiny.Family if family is not tiny.Family.WIDE]


def export(
    engine: Bench,
    path: Path,
    choice: pb.ExportCachesRequest = ALL,
    between: Callable[[], object] = int,
) -> pb.ExportCachesResponse:
    """Writes a file as the worker does; `between` runs after every segment."""
    outgoing = Outgoing.of(engine.engine.store, FINGERPRINT, choice)
    writer = ExportWriter(path, outgoing.manifest("model", 1.0), overwrite=True)
    while job := outgoing.step():
        writer.add(job)
        job.release()
        between()
    writer.finish()
    return outgoing.exported


def import_all(
    engine: Bench, path: Path, fingerprint: str = FINGERPRINT
) -> pb.ImportCachesResponse:
    shape = engine.segment_shape()
    assert shape is not None
    with opened(path, fingerprint) as reader:
        incoming = Incoming(engine.engine.store, reader, reader.contents(shape), 1e9)
        while incoming.step():
            pass
    return incoming.imported


def spoken(family: tiny.Family, seed: int = 1, **more: int) -> tuple[Bench, list[list[int]]]:
    """An engine after two conversations with one stable prefix."""
    engine = bench(family, **more)
    dice = random.Random(seed)
    prefix = words(dice, 160)
    prompts = [prefix + words(dice, 70 + 30 * turn) for turn in range(2)]
    for number, prompt in enumerate(prompts):
        engine.start(prompt, f"s{number}", stable=160).answer()
    return engine, prompts


@pytest.mark.parametrize(("family", "bits"), [(f, 0) for f in FAMILIES] + [(tiny.Family.WIDE, 8)])
def test_what_was_exported_is_reused_exactly(
    family: tiny.Family, bits: int, tmp_path: Path
) -> None:
    """After an import the conversations continue warm, bit-equal to a fresh run."""
    engine, prompts = spoken(family, kv_bits=bits)
    exported = export(engine, tmp_path / "caches")
    other = bench(family, kv_bits=bits)
    imported = import_all(other, tmp_path / "caches")
    assert (imported.segments, imported.tokens) == (exported.segments, exported.tokens)
    assert (imported.known_segments, imported.left_out_segments, imported.lineages) == (0, 0, 2)
    used = other.engine.store.budget.nbytes
    assert used == pytest.approx(engine.engine.store.tree.nbytes, rel=0.01)
    for number, prompt in enumerate(prompts):
        longer = prompt + words(random.Random(9), 20)
        answer = other.start(longer, f"s{number}", stable=160).answer()
        assert answer.reused >= len(prompt) - 1
        assert same(answer, fresh(family, longer, kv_bits=bits))


def test_an_import_outlives_a_restart(tmp_path: Path) -> None:
    """Imported segments are written to disk like computed ones: names, pins, prefix."""
    engine, prompts = spoken(tiny.Family.DENSE)
    store = engine.engine.store
    pin(store, next(node for node in store.tree.nodes() if node.stable_digest), pinned=True)
    export(engine, tmp_path / "caches")
    for turn in range(2):
        disk = DiskTier(tmp_path / "kv", FINGERPRINT, 1 << 30)
        other = bench(tiny.Family.DENSE, disk=disk)
        if not turn:
            assert import_all(other, tmp_path / "caches").unpinned_segments == 0
        tree = other.engine.store.tree
        assert [node.end for node in tree.nodes() if node.pinned and node.stable_digest] == [160]
        assert {lineage.key for lineage in other.engine.store.lineages()} == {
            lineage.key for lineage in store.lineages()
        }
        disk.close()
    disk = DiskTier(tmp_path / "kv", FINGERPRINT, 1 << 30)
    third = bench(tiny.Family.DENSE, disk=disk)
    assert third.start(prompts[0], "s0", stable=160).answer().reused == len(prompts[0]) - 1
    disk.close()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_crash_in_an_import_leaves_what_is_right(steps: int, tmp_path: Path) -> None:
    """After a kill the imported segments are whole; the rest is computed, or imported again."""
    engine, prompts = spoken(tiny.Family.HYBRID)
    exported = export(engine, tmp_path / "caches")
    disk = DiskTier(tmp_path / "kv", FINGERPRINT, 1 << 30)
    other = bench(tiny.Family.HYBRID, disk=disk)
    shape = other.segment_shape()
    assert shape is not None
    with opened(tmp_path / "caches", FINGERPRINT) as reader:
        incoming = Incoming(other.engine.store, reader, reader.contents(shape), 1e9)
        for _ in range(steps):
            incoming.step()
    disk.close()
    disk = DiskTier(tmp_path / "kv", FINGERPRINT, 1 << 30)
    after = bench(tiny.Family.HYBRID, disk=disk)
    answer = after.start(prompts[0], "s0", stable=160).answer()
    assert same(answer, fresh(tiny.Family.HYBRID, prompts[0]))
    imported = import_all(after, tmp_path / "caches")
    assert imported.left_out_segments == 0
    assert imported.known_segments + imported.segments == exported.segments
    assert after.start(prompts[1], "s1", stable=160).answer().reused == len(prompts[1]) - 1
    disk.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_import_joins_what_is_there(family: tiny.Family, tmp_path: Path) -> None:
    """Local and imported branches both stay, and a second import changes nothing."""
    engine, prompts = spoken(family)
    export(engine, tmp_path / "caches")
    other = bench(family)
    local = prompts[0][:100] + words(random.Random(5), 90)
    other.start(local, "local").answer()
    before = other.engine.store.tree.nbytes
    imported = import_all(other, tmp_path / "caches")
    assert imported.left_out_segments == 0
    assert before < other.engine.store.tree.nbytes
    again = import_all(other, tmp_path / "caches")
    assert (again.segments, again.tokens) == (0, 0)
    assert again.known_segments == imported.segments + imported.known_segments
    for name, prompt in (("local", local), ("s0", prompts[0]), ("s1", prompts[1])):
        longer = prompt + words(random.Random(9), 20)
        answer = other.start(longer, name).answer()
        assert answer.reused >= len(prompt) - 1
        assert same(answer, fresh(family, longer))


@pytest.mark.parametrize("family", FAMILIES)
def test_requests_run_between_the_steps(family: tiny.Family, tmp_path: Path) -> None:
    """A file stays whole if segments are split, added or evicted while it is written."""
    engine, prompts = spoken(family)
    dice = random.Random(3)

    def talk() -> None:
        base = dice.choice(prompts)
        fork = base[: dice.randrange(10, len(base))] + words(dice, 20)
        engine.start(fork, f"n{dice.random()}").answer()
        if dice.random() < 0.3:
            node = dice.choice([n for n in engine.engine.store.tree.nodes() if not n.children])
            engine.engine.store.forget(node)

    export(engine, tmp_path / "caches", between=talk)
    other = bench(family)
    assert import_all(other, tmp_path / "caches").left_out_segments == 0
    answer = other.start(prompts[0], "s0").answer()
    assert answer.reused > 0
    assert same(answer, fresh(family, prompts[0]))


def test_what_is_on_disk_only_is_exported(tmp_path: Path) -> None:
    """Evicted segments are exported from their records, except corrupt ones."""
    disk = DiskTier(tmp_path / "kv", FINGERPRINT, 1 << 30)
    engine = bench(tiny.Family.DENSE, disk=disk, live_idle_seconds=-1)
    prompt = words(random.Random(1), 300)
    engine.start(prompt, "a", stable=200).answer()
    disk.flush()
    for node in engine.engine.store.tree.nodes():
        node.content = None
    whole = export(engine, tmp_path / "caches")
    assert whole.left_out_segments == 0
    other = bench(tiny.Family.DENSE)
    import_all(other, tmp_path / "caches")
    assert other.start(prompt, "a").answer().reused == len(prompt) - 1
    for record in (tmp_path / "kv").rglob("*.safetensors"):
        content = bytearray(record.read_bytes())
        content[-10] ^= 1
        record.write_bytes(content)
    assert export(engine, tmp_path / "less").segments < whole.segments
    disk.close()


def test_a_selection_is_exported(tmp_path: Path) -> None:
    """One session can be exported, or only the prefixes, without any session's text."""
    engine, prompts = spoken(tiny.Family.DENSE)
    prefixes = export(engine, tmp_path / "prefixes", pb.ExportCachesRequest(prefixes=True))
    assert prefixes.tokens == 160
    assert b"s0" not in (tmp_path / "prefixes").read_bytes()
    one = export(engine, tmp_path / "one", pb.ExportCachesRequest(session_id="s1"))
    assert one.tokens == len(prompts[1]) + ANSWER_TOKENS
    with pytest.raises(ExchangeError) as refused:
        Outgoing.of(engine.engine.store, FINGERPRINT, pb.ExportCachesRequest(session_id="none"))
    assert refused.value.fault is Fault.MISSING


def test_an_export_is_an_ordinary_tar_file(tmp_path: Path) -> None:
    """Python's and the system's tar list and unpack it; each member is a safetensors file."""
    engine, _ = spoken(tiny.Family.DENSE)
    store = engine.engine.store
    pin(store, next(node for node in store.tree.nodes() if node.stable_digest), pinned=True)
    exported = export(engine, tmp_path / "caches.tar")
    (tmp_path / "out").mkdir()
    unpack = ["tar", "-xpf", str(tmp_path / "caches.tar"), "-C", str(tmp_path / "out")]
    subprocess.run(unpack, check=True)
    with tarfile.open(tmp_path / "caches.tar") as tar:
        assert {member.name for member in tar} == {f.name for f in (tmp_path / "out").iterdir()}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["fingerprint"], len(manifest["lineages"])) == (FINGERPRINT, 2)
    records = list((tmp_path / "out").glob("*.safetensors"))
    assert len(records) == exported.segments
    assert [record.stat().st_mode & 0o777 for record in records].count(0o400) == 1
    for record in records:
        with safe_open(record, "numpy") as opened_record:
            assert opened_record.metadata()["record_id"] == record.stem


def test_segments_beyond_the_budget_are_counted(tmp_path: Path) -> None:
    """An import stays within the budget and counts the segments that do not fit."""
    engine, prompts = spoken(tiny.Family.DENSE)
    export(engine, tmp_path / "caches")
    limit = int(170 * engine.engine.store.budget.bytes_per_token)
    small = bench(tiny.Family.DENSE, limit)
    imported = import_all(small, tmp_path / "caches")
    assert imported.left_out_segments > 0
    assert small.engine.store.budget.nbytes <= limit
    assert same(small.start(prompts[0], "s0").answer(), fresh(tiny.Family.DENSE, prompts[0]))


def test_pins_beyond_the_limit_are_left_out(tmp_path: Path) -> None:
    """Beyond the limit for pinned caches, segments are imported without their pin."""
    engine, _ = spoken(tiny.Family.DENSE)
    store = engine.engine.store
    tip = store.lineages()[0].tip
    assert tip is not None
    pin(store, tip, pinned=True)
    export(engine, tmp_path / "caches")
    small = bench(tiny.Family.DENSE, int(store.tree.nbytes * 1.02))
    assert import_all(small, tmp_path / "caches").unpinned_segments > 0
    assert 0 < pinned_bytes(small.engine.store) <= small.engine.store.pinned_limit_bytes
