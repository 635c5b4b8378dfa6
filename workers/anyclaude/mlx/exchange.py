"""The verbs `cache export` and `cache import`.

The MLX thread copies one segment at a time, between the turns of requests. Another thread writes
the file, or verifies it.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from anyclaude.cache.v1 import cache_pb2 as pb
from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.kv_disk import DiskState, DiskTier
from anyclaude.mlx.kv_disk.export_file import ExchangeError, ExportWriter, Fault
from anyclaude.mlx.kv_disk.import_file import ExportReader, opened
from anyclaude.mlx.kv_disk.incoming import Incoming
from anyclaude.mlx.kv_disk.outgoing import Outgoing
from anyclaude.mlx.kv_disk.records import SegmentShape
from anyclaude.mlx.kv_disk.writer import WriteJob
from anyclaude.mlx.model import Model

# How long an import waits for one segment to reach the disk before it continues.
_WRITE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02

Result = TypeVar("Result")


class Exchange:
    """Exports and imports caches, one file at a time; the next call waits."""

    def __init__(
        self, engine: Engine, model: Model, fingerprint: str, tier: DiskTier | None
    ) -> None:
        """`tier` is None if caches are kept in memory only."""
        self._engine = engine
        self._store = engine.store
        self._fingerprint = fingerprint
        self._model = model
        self._tier = tier
        # One thread, so that a file is closed after its last write even if the caller is gone.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="exchange")
        self._turn = asyncio.Lock()

    async def export_caches(self, request: pb.ExportCachesRequest) -> pb.ExportCachesResponse:
        """Raises ExchangeError; then the file is as it was before."""
        async with self._turn:
            try:
                return await self._export(request)
            except OSError as error:
                why = error.strerror or str(error)
                raise ExchangeError(
                    Fault.REFUSED, f"{request.path} cannot be written: {why}. Nothing was kept."
                ) from error

    async def import_caches(self, request: pb.ImportCachesRequest) -> pb.ImportCachesResponse:
        """Raises ExchangeError; then nothing was imported, unless the file changed while read."""
        async with self._turn:
            shape = await self._on_engine(
                lambda: SegmentShape.of(self._model.weights, self._store.kv_bits)
            )
            if shape is None:
                raise ExchangeError(
                    Fault.REFUSED, "This model has layers whose caches cannot be stored."
                )
            try:
                with opened(Path(request.path), self._fingerprint) as reader:
                    return await self._import(reader, shape)
            except OSError as error:
                why = error.strerror or str(error)
                raise ExchangeError(
                    Fault.MISSING, f"{request.path} cannot be read: {why}."
                ) from error

    async def _export(self, request: pb.ExportCachesRequest) -> pb.ExportCachesResponse:
        outgoing = await self._on_engine(
            lambda: Outgoing.of(self._store, self._fingerprint, request)
        )
        manifest = await self._on_engine(
            lambda: outgoing.manifest(self._model.info.id, time.time())
        )
        path, overwrite = Path(request.path), request.overwrite
        writer = await self._on_disk(lambda: ExportWriter(path, manifest, overwrite=overwrite))
        try:
            while job := await self._on_engine(outgoing.step):
                await self._write(writer, job)
            outgoing.exported.bytes = await self._on_disk(writer.finish)
        finally:
            self._disk.submit(writer.abandon)
        outgoing.exported.lineages = len(manifest.lineages)
        return outgoing.exported

    async def _write(self, writer: ExportWriter, job: WriteJob) -> None:
        try:
            await self._on_disk(lambda: writer.add(job))
        finally:
            # MLX arrays are freed on the MLX thread only.
            self._engine.call(job.release)

    async def _import(self, reader: ExportReader, shape: SegmentShape) -> pb.ImportCachesResponse:
        self._check_size(reader)
        contents = await self._on_disk(lambda: reader.contents(shape))
        incoming = Incoming(self._store, reader, contents, time.time())
        while await self._on_engine(incoming.step):
            await self._until_written()
        incoming.imported.bytes = reader.nbytes
        return incoming.imported

    def _check_size(self, reader: ExportReader) -> None:
        """Refuses a file larger than the budget, which would evict its own first segments."""
        name, limit = "cache.memory_limit_bytes", self._engine.status.cache_limit_bytes
        if self._tier is not None:
            name, limit = "cache.disk_limit_bytes", self._tier.status().budget_bytes
        if reader.nbytes > limit:
            raise ExchangeError(
                Fault.TOO_LARGE,
                f"The file takes {reader.nbytes} bytes, and caches may take {limit} here. Raise "
                f"{name}, or export less: --session or --prefixes.",
            )

    async def _until_written(self) -> None:
        """Waits until the segments are on disk, so that they can be evicted from memory later."""
        tier = self._tier
        if tier is None:
            return
        deadline = time.monotonic() + _WRITE_SECONDS
        while time.monotonic() < deadline:
            status = tier.status()
            if not status.pending_writes or status.state is DiskState.STOPPED:
                break
            await asyncio.sleep(_POLL_SECONDS)
        await self._on_engine(tier.reap)

    async def _on_engine(self, function: Callable[[], Result]) -> Result:
        return await asyncio.wrap_future(self._engine.call(function))

    async def _on_disk(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._disk, function)
