"""Full, read-only and shared disks: requests are still served, and status says why."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from anyclaude.mlx.kv_disk import Bounds, DiskState, Point
from tests.unit.mlx.kv_disk import records as disk


@contextmanager
def _small_volume(path: Path, size: str) -> Iterator[Path]:
    """Mounts a tmpfs at `path`; skips if that is not allowed."""
    mounted = path / "volume"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mounted)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_full_volume():
    """Too little free space is noticed before writing, and space that returns is used."""
    clock = disk.Clock()
    with (
        disk.folder() as path,
        _small_volume(path, "600k") as volume,
        disk.tier(volume, clock=clock) as tier,
    ):
        small, large = disk.segment("a1"), disk.segment("b2", floats=20_000)
        assert tier.save(small, wait=True)
        (volume / "ballast").write_bytes(bytes(450_000))
        assert not tier.save(large, wait=True)
        status = tier.status()
        assert status.state is DiskState.FAILING
        assert status.state is not DiskState.SERVING
        # The volume shows less than is needed, so that nothing is even begun.
        assert (status.failed_writes, status.skipped_writes) == (0, 1)
        assert "free" in status.last_error
        assert disk.same(tier.load("a1"), small)
        (volume / "ballast").unlink()
        assert tier.save(large, wait=True)
        assert tier.status().state is DiskState.SERVING
        assert disk.same(tier.load("b2"), large)


def test_a_volume_that_fills_up_while_we_write():
    """If the space runs out during a write, the partial file is removed."""
    clock = disk.Clock()
    with disk.folder() as path, _small_volume(path, "600k") as volume:

        def reach(point: Point) -> None:
            if point is Point.HALF_WRITTEN:
                free = os.statvfs(volume)
                ballast = bytes(free.f_bavail * free.f_frsize - 8192)
                (volume / "ballast").write_bytes(ballast)

        with disk.tier(volume, clock=clock, failpoint=reach) as tier:
            assert not tier.save(disk.segment("b2", floats=20_000), wait=True)
            status = tier.status()
            assert (status.failed_writes, status.state) == (1, DiskState.FAILING)
            assert "No space left" in status.last_error
            assert status.nbytes == disk.bytes_on_disk(volume)
            assert not [file for file in volume.rglob("*ab*") if file.is_file()]
            assert not list(volume.rglob("*.tmp"))


def test_the_reserve_of_free_space_is_kept():
    """Nothing is written if free space would fall below the reserve; status names both numbers."""
    bounds = Bounds(min_free_bytes=2**62)
    with disk.folder() as path, disk.tier(path, bounds=bounds) as tier:
        assert not tier.save(disk.segment("ab"), wait=True)
        assert str(2**62) in tier.status().last_error
        assert tier.status().state is not DiskState.SERVING


def test_a_read_only_volume():
    """On a read-only volume records are loaded and saving fails visibly, until it is writable."""
    clock = disk.Clock()
    with disk.folder() as path, _small_volume(path, "600k") as volume:
        saved = disk.segment("a1")
        with disk.tier(volume, clock=clock) as tier:
            assert tier.save(saved, wait=True)
        _remount(volume, "ro")
        with disk.tier(volume, clock=clock) as tier:
            assert disk.ids(tier) == ["a1"]
            assert disk.same(tier.load("a1"), saved)
            status = tier.status()
            assert status.state is DiskState.FAILING
            assert "Read-only" in status.last_error
            assert not tier.save(disk.segment("b2"))
            tier.touch(["a1"])
            assert tier.flush(20)
            clock.now += disk.BOUNDS.retry_seconds + 1
            assert not tier.save(disk.segment("b2"), wait=True)
            _remount(volume, "rw")
            clock.now += disk.BOUNDS.retry_seconds + 1
            assert tier.save(disk.segment("b2", "a1"), wait=True)
            assert tier.status().state is DiskState.SERVING
            assert disk.ids(tier) == ["a1", "b2"]


def _remount(volume: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(volume)], check=True)


def test_a_folder_that_cannot_be_made():
    """A file in the folder's place disables the tier and nothing else."""
    with disk.folder() as path:
        (path / "kv").write_text("in the way")
        with capture_logs(), disk.tier(path) as tier:
            assert tier.records() == []
            assert tier.load("ab") is None
            assert not tier.save(disk.segment("ab"))
            assert tier.status().state is DiskState.FAILING
            assert tier.flush(20)


def test_two_tiers_on_one_folder():
    """A second tier on the folder stores nothing, names the owner, and opens it once that ends."""
    clock = disk.Clock()
    with disk.folder() as path:
        saved = disk.segment("a1")
        with disk.tier(path) as first:
            assert first.save(saved, wait=True)
            with disk.tier(path, clock=clock) as second:
                assert second.records() == []
                assert second.load("a1") is None
                status = second.status()
                assert status.state is DiskState.SHARED
                assert str(os.getpid()) in status.last_error
                assert not second.save(disk.segment("b2"))
                clock.now += disk.BOUNDS.retry_seconds + 1
                assert not second.save(disk.segment("b2"), wait=True)
                assert second.status().skipped_writes == 2
                assert disk.same(first.load("a1"), saved)
                first.close()
                clock.now += disk.BOUNDS.retry_seconds + 1
                assert second.save(disk.segment("b2"), wait=True)
                assert second.status().state is DiskState.SERVING
                assert disk.ids(second) == ["a1", "b2"]
                assert disk.same(second.load("a1"), saved)
