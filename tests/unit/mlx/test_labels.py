"""Labels of caches: stored with their cache, bounded, safe against a damaged file."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyclaude.mlx import labels as module
from anyclaude.mlx.caches import UnknownCacheError
from anyclaude.mlx.kv.operations import Selection, prune
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv_disk import DiskTier
from anyclaude.mlx.labels import LabelError, Labels
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import bench

FINGERPRINT = "model-1"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskTier]:
    disk = DiskTier(tmp_path / "kv", FINGERPRINT, 1 << 30)
    yield disk
    disk.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "labels.json"


@pytest.fixture
def store(disk: DiskTier) -> KVStore:
    """A store with two conversations."""
    made = bench(tiny.Family.DENSE, disk=disk)
    for session in ("one", "two"):
        made.start([ord(letter) for letter in session] * 20, session).answer()
    return made.engine.store


def on_disk(file: Path) -> object:
    return json.loads(file.read_text())


def test_a_pruned_cache_loses_its_label(store: KVStore, disk: DiskTier, file: Path) -> None:
    """The label of a pruned cache is removed; the other one stays."""
    labels, names = Labels(store, disk), [lineage.name for lineage in store.lineages()]
    for name in names:
        labels.put(name, f"label of {name}")
    prune(store, Selection(session_id="one"))
    labels.forget_pruned()
    assert on_disk(file) == {FINGERPRINT: {names[1]: f"label of {names[1]}"}}


def test_labels_of_models_without_records_go(store: KVStore, disk: DiskTier, file: Path) -> None:
    """Labels of models without records are removed, which bounds the file."""
    file.write_text(json.dumps({"model-0": {"lineages/x": "old"}}))
    labels, name = Labels(store, disk), store.lineages()[0].name
    labels.put(name, "new")
    assert on_disk(file) == {FINGERPRINT: {name: "new"}}


def test_labels_are_bounded(
    store: KVStore, disk: DiskTier, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label beyond the limit is refused; replacing one is not."""
    monkeypatch.setattr(module, "MAX_LABELS", 1)
    labels, (one, two) = Labels(store, disk), [lineage.name for lineage in store.lineages()]
    labels.put(one, "first")
    with pytest.raises(LabelError):
        labels.put(two, "second")
    labels.put(one, "again")
    assert on_disk(file) == {FINGERPRINT: {one: "again"}}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model-1": 3}', b"\xff\xfe", b"null"])
def test_a_file_that_is_not_ours_is_ignored(
    store: KVStore, disk: DiskTier, file: Path, content: bytes
) -> None:
    """A damaged file loses the labels only, and the next label replaces it."""
    file.write_bytes(content)
    labels, name = Labels(store, disk), store.lineages()[0].name
    labels.put(name, "new")
    assert on_disk(file) == {FINGERPRINT: {name: "new"}}


def test_a_label_that_cannot_be_written_is_not_shown(
    store: KVStore, disk: DiskTier, file: Path
) -> None:
    """If a label cannot be written, the operator gets an error and no label is shown."""
    labels, name = Labels(store, disk), store.lineages()[0].name
    file.mkdir()
    with pytest.raises(LabelError, match="cannot be written"):
        labels.put(name, "new")
    file.rmdir()
    assert Labels(store, disk).of(name) == labels.of(name) == ""


def test_without_a_disk_tier_labels_last_as_long_as_memory() -> None:
    """Without a disk tier labels work in memory, and nothing is written."""
    made = bench(tiny.Family.DENSE)
    made.start([7] * 60, "one").answer()
    store = made.engine.store
    labels, name = Labels(store, None), store.lineages()[0].name
    labels.put(name, "mine")
    assert labels.of(name) == "mine"
    with pytest.raises(UnknownCacheError):
        labels.put("lineages/none", "mine")
