"""Records are ordinary files: safetensors, a modification time and a mode."""

import base64
import os
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
from safetensors import deserialize, safe_open

from anyclaude.mlx.kv_disk import DiskTier, Point, Segment
from anyclaude.mlx.kv_disk.writer import WriteJob
from anyclaude.mlx.kv_disk.writing import pass_by, write_record
from tests.figures import FIGURES, RecordProperty
from tests.unit.mlx.kv_disk import records as disk

MANY = 5000
# Of processor time, which does not depend on what else the machine does.
MAX_OPENING_SECONDS = 1.0


def test_the_safetensors_library_opens_a_record():
    """The library reads the arrays bit by bit, and tokens, labels and format as metadata."""
    with disk.folder() as path, disk.tier(path) as tier:
        saved = disk.segment("ab", floats=1000, tokens=16)
        assert tier.save(saved, wait=True)
        file = disk.file_of(path, "ab")
        with safe_open(file, "numpy") as record:
            metadata = record.metadata()
        tensors = dict(deserialize(file.read_bytes()))
        assert {name: tensor["dtype"] for name, tensor in tensors.items()} == {
            "0.keys": "F32",
            "0.values": "BF16",
        }
        for name, array in saved.arrays.items():
            assert bytes(tensors[name]["data"]) == disk.bits(array)
        assert disk.same((mx.load(str(file)), saved.meta), saved)
        ids = np.frombuffer(base64.b64decode(metadata["tokens"]), dtype="<i4")
        assert np.array_equal(ids, saved.token_ids)
        assert metadata["format"] == "anyclaude-kv-2"
        assert (metadata["record_id"], metadata["fingerprint"]) == ("ab", disk.FINGERPRINT)
        assert (metadata["kind"], metadata["session_id"]) == ("turn", "session")


def test_the_data_is_aligned_as_the_format_asks():
    """The data begins at a multiple of 8 bytes, whatever the header's length is."""
    with disk.folder() as path, disk.tier(path) as tier:
        for number in range(8):
            segment = disk.segment(f"{number:02x}", tokens=number)
            assert tier.save(segment, wait=True)
            length = int.from_bytes(disk.file_of(path, f"{number:02x}").read_bytes()[:8], "little")
            assert length % 8 == 0


def test_last_use_and_pin_are_the_files_own():
    """Last use and pin are written to the file at every change, and are read from it."""
    clock = disk.Clock()
    with disk.folder() as path:
        file = disk.file_of(path, "ab")
        with disk.tier(path, clock=clock) as tier:
            assert tier.save(disk.segment("ab"), wait=True)
            assert (file.stat().st_mtime, file.stat().st_mode & 0o777) == (clock.now, 0o600)
            clock.now += 5
            tier.touch(["ab"])
            tier.pin(["ab"], True)
            assert tier.flush(20)
            assert (file.stat().st_mtime, file.stat().st_mode & 0o777) == (clock.now, 0o400)
        os.utime(file, (7.0, 7.0))
        with disk.tier(path, clock=clock) as tier:
            (record,) = tier.records()
            assert (record.last_use, record.pinned) == (7.0, True)
        file.chmod(0o600)
        with disk.tier(path, clock=clock) as tier:
            assert not tier.records()[0].pinned


def test_a_pin_that_comes_while_a_record_is_written_reaches_its_file():
    """A pin set between writing the mode and entering the record is not lost."""
    with disk.folder() as path:
        tiers: list[DiskTier] = []

        def reach(point: object) -> None:
            if point is Point.RENAMED:
                tiers[0].pin(["ab"], True)

        with disk.tier(path, failpoint=reach) as tier:
            tiers.append(tier)
            assert tier.save(disk.segment("ab"), wait=True)
        with disk.tier(path) as tier:
            assert tier.records()[0].pinned


def test_records_of_the_first_format_age_out():
    """Records of format 1 are counted and evicted first; their index is deleted."""
    with disk.folder() as path:
        for name in ("a1", "b2"):
            old = disk.file_of(path, name).with_suffix(".kv")
            old.parent.mkdir(parents=True)
            old.write_bytes(b"ACKVREC\n\x01\0\0\0" + bytes(4000))
        (path / "kv" / "index.sqlite").write_bytes(bytes(4096))
        with disk.tier(path, budget_bytes=10_000) as tier:
            status = tier.status()
            assert (status.other_versions, status.records, status.quarantined) == (2, 0, 0)
            assert status.nbytes == disk.bytes_on_disk(path) == 8024
            assert tier.load("a1") is None
            assert tier.save(disk.segment("a1"), wait=True)
            assert [file.name for file in path.rglob("*.kv")] == ["b2.kv"]
            assert tier.save(disk.segment("c3", floats=600), wait=True)
            assert tier.status().other_versions == 0
            assert disk.ids(tier) == ["a1", "c3"]
        assert list(path.rglob("*.kv")) == list(path.rglob("index*")) == []


def test_five_thousand_records_are_opened(record_property: RecordProperty):
    """Reading the headers of 5,000 records takes less than a second."""
    with disk.folder() as path:
        _write_many(path)
        began = time.process_time()
        with disk.tier(path, budget_bytes=1 << 30) as tier:
            taken = time.process_time() - began
            assert len(tier.records()) == MANY
    record_property(FIGURES, f"{MANY} records opened in {taken:.2f} s of processor time")
    assert taken < MAX_OPENING_SECONDS


def _write_many(path: Path) -> None:
    segment = disk.segment("ab", tokens=200)
    for number in range(MANY):
        named = WriteJob.of(
            Segment(**vars(segment) | {"record_id": f"{number:032x}"}), disk.FINGERPRINT, 1.0
        )
        file = disk.file_of(path, named.info.record_id)
        write_record(file, named.encode(), named.info, pass_by)


def test_a_killed_writers_file_is_deleted():
    """A killed process's temporary file is deleted at the next opening."""
    with disk.folder() as path:
        with disk.tier(path) as tier:
            assert tier.save(disk.segment("ab"), wait=True)
        left = disk.file_of(path, "ab").with_name(".ab.safetensors.tmp")
        left.write_bytes(bytes(100))
        with disk.tier(path) as tier:
            assert not left.exists()
            assert disk.ids(tier) == ["ab"]
