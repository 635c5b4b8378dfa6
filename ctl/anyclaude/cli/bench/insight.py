"""What the running service knows of itself: the bytes of its caches and of its processes."""

import contextlib
from typing import TYPE_CHECKING

import psutil

from anyclaude.cache.v1 import cache_pb2
from anyclaude.cli.client import SLOW_CALL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyclaude.cli.client import ControlClient


class ServiceInsight:
    """Asks the daemon over its control socket."""

    def __init__(self, client: "ControlClient") -> None:
        self._client = client

    def cache_bytes(self) -> int:
        """Bytes of all caches in memory; other conversations that run meanwhile count as well."""
        return self._client.list_caches().memory.cache_bytes

    def memory_bytes(self) -> dict[str, int]:
        """Resident memory of all processes, and what MLX holds of it or of the GPU's."""
        status = self._client.status()
        daemon = psutil.Process(status.pid)
        processes = (daemon, *daemon.children(recursive=True))
        return {
            "resident": sum(map(_resident_bytes, processes)),
            "MLX": status.memory.active_bytes,
        }

    def remove(self, sessions: "Iterable[str]") -> None:
        """Removes the caches of the benchmark's own sessions."""
        for session in sessions:
            request = cache_pb2.PruneCachesRequest(force=True)
            request.filter.session_id, request.filter.all = session, True
            self._client.call(self._client.caches.PruneCaches, request, SLOW_CALL_SECONDS)


def _resident_bytes(process: psutil.Process) -> int:
    """0 for a process that has ended meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0
