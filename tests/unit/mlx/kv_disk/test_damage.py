"""Corrupt records are never loaded, and whole ones stay usable."""

import random
import shutil
from pathlib import Path

import pytest

from anyclaude.mlx.kv_disk import Bounds, Segment
from tests.figures import FIGURES, RecordProperty
from tests.unit.mlx.kv_disk import records as disk

SEED = 20_250_711
FLIPS = 1000


def _tree(tier: disk.Tier) -> dict[str, Segment]:
    """Two roots; the first has a child and a grandchild."""
    saved = {
        "a1": disk.segment("a1"),
        "b2": disk.segment("b2", "a1", start=8),
        "c3": disk.segment("c3", "b2", start=16),
        "d4": disk.segment("d4"),
    }
    for part in saved.values():
        assert tier.save(part, wait=True)
    return saved


def test_no_truncation_is_loaded(record_property: RecordProperty):
    """A record cut at every 4 KiB, at 0 and 1 byte and one byte short is never loaded."""
    with disk.folder() as path:
        saved = disk.segment("ab", floats=20_000)
        with disk.tier(path) as tier:
            assert tier.save(saved, wait=True)
        file = disk.file_of(path, "ab")
        whole = file.read_bytes()
        lengths = sorted({0, 1, len(whole) - 1, *range(0, len(whole), 4096)})
        for length in lengths:
            file.write_bytes(whole)
            with disk.tier(path) as tier:
                assert disk.same(tier.load("ab"), saved)
                file.write_bytes(whole[:length])
                assert tier.load("ab") is None
                assert tier.status().quarantined == 1
            file.write_bytes(whole[:length])
            with disk.tier(path) as tier:
                assert tier.load("ab") is None
                assert tier.records() == []
    record_property(
        FIGURES,
        f"record of {len(whole)} bytes cut at {len(lengths)} places, each twice: 0 loaded",
    )


def test_no_bit_flip_is_loaded(record_property: RecordProperty):
    """None of 1,000 random bit flips leads to wrong data."""
    dice = random.Random(SEED)
    refused_open, refused_load, in_data = 0, 0, 0
    with disk.folder() as path:
        saved = Segment(**(vars(disk.segment("ab", floats=37)) | {"meta": {"x": [1, "y"]}}))
        with disk.tier(path) as tier:
            assert tier.save(saved, wait=True)
            record = tier.records()[0]
            file = disk.file_of(path, "ab")
            whole = file.read_bytes()
            data_at = 8 + int.from_bytes(whole[:8], "little")
            for number in range(FLIPS):
                bit = dice.randrange(8 * data_at * (number % 2), 8 * len(whole))
                in_data += bit >= 8 * data_at
                _flip(file, whole, bit)
                assert tier.load("ab") is None, f"seed {SEED}, bit {bit}"
                refused_load += 1
                assert tier.save(saved, wait=True)
                assert file.read_bytes()[-64:] == whole[-64:]
            assert disk.same(tier.load("ab"), saved)
            assert tier.records()[0].nbytes == record.nbytes
        for _ in range(FLIPS // 20):
            bit = dice.randrange(8 * len(whole))
            _flip(file, whole, bit)
            with disk.tier(path) as tier:
                loaded = tier.load("ab")
                assert loaded is None, f"seed {SEED}, bit {bit}"
                refused_open += 1
    record_property(
        FIGURES,
        f"bit flips in a record, seed {SEED}: {refused_load} while open ({in_data} in the "
        f"data), {refused_open} before opening, 0 loaded",
    )


def _flip(file: Path, whole: bytes, bit: int) -> None:
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    file.write_bytes(flipped)


def test_a_corrupt_record_is_quarantined_with_its_reason():
    """A corrupt record is quarantined with its reason, its descendants are removed, others stay."""
    with disk.folder() as path:
        with disk.tier(path) as tier:
            saved = _tree(tier)
            file = disk.file_of(path, "a1")
            _flip(file, file.read_bytes(), 8 * (file.stat().st_size - 1))
            assert tier.load("a1") is None
            assert disk.ids(tier) == ["d4"]
            assert tier.load("c3") is None
            status = tier.status()
            assert (status.quarantined, status.records) == (3, 1)
            assert "checksum" in status.last_error
            assert tier.flush(20)
            assert disk.same(tier.load("d4"), saved["d4"])
            (reason,) = (path / "kv" / "quarantine").glob("*.txt")
            assert "checksum" in reason.read_text()
            assert tier.status().nbytes == disk.bytes_on_disk(path)
            assert tier.save(saved["a1"], wait=True)
            assert disk.same(tier.load("a1"), saved["a1"])
        assert sorted(file.stem for file in path.glob(f"kv/{disk.FINGERPRINT}/*/*")) == ["a1", "d4"]


def test_the_quarantine_is_bounded():
    """The quarantine is limited in bytes: its oldest files are deleted, and so is a large one."""
    bounds = Bounds(quarantine_bytes=3500, min_free_bytes=0)
    with disk.folder() as path, disk.tier(path, bounds=bounds) as tier:
        for number, floats in enumerate((64, 64, 64, 9000)):
            name = f"{number:02x}"
            assert tier.save(disk.segment(name, floats=floats), wait=True)
            file = disk.file_of(path, name)
            _flip(file, file.read_bytes(), 100)
            assert tier.load(name) is None
            assert tier.flush(20)
        kept = sorted(file.stem for file in (path / "kv" / "quarantine").glob("*.safetensors"))
        assert kept == [f"{disk.FINGERPRINT}-01", f"{disk.FINGERPRINT}-02"]
        assert disk.bytes_on_disk(path) == tier.status().nbytes


def test_swapped_and_foreign_files_are_not_loaded():
    """A whole record under another's name, or from another model's folder, is refused."""
    with disk.folder() as path:
        with disk.tier(path, fingerprint="0ther") as tier:
            assert tier.save(disk.segment("a1", seed=9), wait=True)
        with disk.tier(path) as tier:
            _tree(tier)
            one, two = disk.file_of(path, "a1"), disk.file_of(path, "d4")
            content = one.read_bytes(), two.read_bytes()
            one.write_bytes(content[1])
            two.write_bytes(content[0])
            assert tier.load("a1") is None
            assert tier.load("d4") is None
            assert tier.flush(20)
            assert tier.save(disk.segment("a1"), wait=True)
            shutil.copy(path / "kv" / "0ther" / "a1" / "a1.safetensors", one)
            assert tier.load("a1") is None
            assert tier.records() == []


def test_the_same_tokens_of_another_model_are_not_loaded():
    """A record with the right tokens but another model's values is refused."""
    with disk.folder() as path:
        own = disk.segment("a1")
        values = disk.segment("a1", seed=3).arrays
        with disk.tier(path, fingerprint="0ther") as tier:
            assert tier.save(Segment(**(vars(own) | {"arrays": values})), wait=True)
        with disk.tier(path) as tier:
            assert tier.save(own, wait=True)
            shutil.copy(path / "kv" / "0ther" / "a1" / "a1.safetensors", disk.file_of(path, "a1"))
            assert tier.load("a1") is None


def test_an_earlier_record_of_the_same_name_is_not_loaded():
    """A record from before a split, which covers other tokens, is refused."""
    with disk.folder() as path, disk.tier(path) as tier:
        assert tier.save(disk.segment("ab", tokens=16), wait=True)
        earlier = disk.file_of(path, "ab").read_bytes()
        assert tier.save(disk.segment("cd"))
        assert tier.save(disk.segment("ab", "cd", start=8), wait=True)
        disk.file_of(path, "ab").write_bytes(earlier)
        assert tier.load("ab") is None


def test_a_link_is_not_followed():
    """A symbolic link in place of a record is neither listed nor read."""
    with disk.folder() as path:
        with disk.tier(path) as tier:
            assert tier.save(disk.segment("ab"), wait=True)
            file = disk.file_of(path, "ab")
            file.rename(path / "elsewhere.safetensors")
            file.symlink_to(path / "elsewhere.safetensors")
            assert tier.load("ab") is None
        file.unlink(missing_ok=True)
        file.symlink_to(path / "elsewhere.safetensors")
        with disk.tier(path) as tier:
            assert tier.records() == []


@pytest.mark.parametrize("version", [0, 1, 3, 77])
def test_another_format_version_is_ignored_and_collected(version):
    """A record of another format version is counted, not read, and replaced by its namesake."""
    with disk.folder() as path:
        with disk.tier(path) as tier:
            saved = _tree(tier)
        file = disk.file_of(path, "d4")
        _set_version(file, version)
        with disk.tier(path) as tier:
            assert disk.ids(tier) == ["a1", "b2", "c3"]
            assert tier.load("d4") is None
            status = tier.status()
            assert (status.other_versions, status.quarantined) == (1, 0)
            assert status.nbytes == disk.bytes_on_disk(path)
            assert tier.save(saved["d4"], wait=True)
            assert disk.same(tier.load("d4"), saved["d4"])
            assert tier.status().nbytes == disk.bytes_on_disk(path)


def test_records_of_other_versions_are_evicted_first():
    """Records that this build cannot read are evicted first."""
    with disk.folder() as path:
        with disk.tier(path) as tier:
            _tree(tier)
        _set_version(disk.file_of(path, "d4"), 9)
        budget = disk.bytes_on_disk(path) + 1000
        with disk.tier(path, budget_bytes=budget) as tier:
            assert tier.save(disk.segment("e5"), wait=True)
            assert disk.ids(tier) == ["a1", "e5", "b2", "c3"]
            assert not disk.file_of(path, "d4").exists()


def _set_version(file: Path, version: int) -> None:
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"anyclaude-kv-2"', b'"anyclaude-kv-%d"' % version, 1))


def test_orphans_are_collected():
    """Records whose parent is missing at opening are deleted with all that build on them."""
    with disk.folder() as path:
        with disk.tier(path) as tier:
            _tree(tier)
        disk.file_of(path, "a1").unlink()
        with disk.tier(path) as tier:
            assert disk.ids(tier) == ["d4"]
            assert tier.status().orphans == 2
        assert [file.stem for file in path.rglob("*.safetensors")] == ["d4"]


def test_a_deleted_file_loads_as_none():
    """A record whose file was deleted loads as None, and all that build on it are removed."""
    with disk.folder() as path, disk.tier(path) as tier:
        _tree(tier)
        disk.file_of(path, "b2").unlink()
        assert tier.load("b2") is None
        assert disk.ids(tier) == ["a1", "d4"]
