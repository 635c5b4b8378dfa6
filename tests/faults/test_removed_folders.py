"""Folders that somebody removes, and a disk that is full for a while, under a running service."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from anyclaude.control.v1 import control_pb2
from anyclaude.worker.v1 import worker_pb2
from tests.integration.service import WAIT_SECONDS, Service
from tests.integration.serving.test_disk import ask, mounted, reused
from tests.models import saved

_MIB: Final = 1024 * 1024
# The daemon, the front end, and two for each worker.
_SOCKETS: Final = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = Path("/tmp") / f"ac-{tmp_path.name[-40:]}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["run", "logs", "cache"])
def test_a_removed_folder_is_made_anew(home: Path, model: Path, name: str) -> None:
    """Requests and commands are answered, one daemon runs, and caches are stored again."""
    with Service(model=model, home=home) as service:
        service.ready()
        first = ask(service)
        records = service.poll(lambda status: _is_stored(status.disk)).disk.records
        shutil.rmtree(home / name)
        assert reused(ask(service)) == first["usage"]["cache_creation_input_tokens"]
        assert ask(service, words="something else")["type"] == "message"
        _wait_for(service, home, name, records)
        with Service(model=model, home=home) as second:
            assert second.process.wait(WAIT_SECONDS) == 1
            assert f"already runs with pid {service.process.pid}" in second.output
        assert service.control("status").code == 0
        assert service.stop() == 0
        assert service.sockets() == []
    with Service(model=model, home=home) as service:
        again = ask(service.ready())
        assert reused(again) == first["usage"]["cache_creation_input_tokens"]
        assert again["content"] == first["content"]


def _wait_for(service: Service, home: Path, name: str, records: int) -> None:
    """Returns once the folder is back with what belongs in it."""
    if name == "cache":
        service.poll(lambda status: _is_stored(status.disk) and status.disk.records >= records)
    elif name == "run":
        _poll(lambda: len(service.sockets()) == _SOCKETS)
        assert service.control("cache", "list").code == 0
    else:
        assert "anyclaude" in service.paths.log_file.read_text()


def _poll(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_full_disk_heals(home: Path, model: Path) -> None:
    """Caches that were computed while the disk was full are stored once there is room."""
    cache = home / "cache"
    with mounted("-t", "tmpfs", "-o", "size=3g,mode=700", "tmpfs", at=cache):
        # The tier leaves a gigabyte to others.
        ballast = cache / "ballast"
        subprocess.run(["fallocate", "-l", str(2200 * _MIB), str(ballast)], check=True)
        with Service(model=model, home=home) as service:
            first = ask(service.ready())
            status = service.poll(lambda status: status.disk.skipped_writes > 0)
            assert status.readiness == control_pb2.READINESS_DEGRADED
            assert any("KV caches do not reach the disk" in found for found in status.problems)
            ballast.unlink()
            service.poll(lambda status: _is_stored(status.disk))
            assert service.status().readiness == control_pb2.READINESS_READY
            assert service.stop() == 0
        with Service(model=model, home=home) as service:
            assert reused(ask(service.ready())) == first["usage"]["cache_creation_input_tokens"]
            assert service.stop() == 0


def _is_stored(disk: Any) -> bool:
    serves = disk.state == worker_pb2.DISK_STATE_SERVING
    return bool(serves and disk.records and not disk.pending_writes)
