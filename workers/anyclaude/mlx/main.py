"""The MLX worker's process: load, warm up, serve, exit.

The engine runs on the main thread (see `engine`), the sockets' loop on a side thread. The process
exits by `os._exit` so that no MLX teardown races the interpreter's.
"""

import asyncio
import hashlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

import grpc.aio
import structlog

import mlx.core as mx
from anyclaude.cache.v1 import cache_pb2_grpc
from anyclaude.messages.documents import limit_documents
from anyclaude.messages.windows import window_problem
from anyclaude.mlx import memory
from anyclaude.mlx.adapter import (
    MLX_VERSIONS,
    LanguageModel,
    TokenizerWrapper,
    prefill,
)
from anyclaude.mlx.cache_service import CacheService
from anyclaude.mlx.engine.chunks import ChunkSizes, score_heads
from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.exchange import Exchange
from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.kv.budget import StoreLimits
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv_disk import Bounds, DiskState, DiskTier
from anyclaude.mlx.kv_disk.archive import Archive
from anyclaude.mlx.kv_disk.records import RECORD_LAYOUT
from anyclaude.mlx.kv_explain.diagnose import Detokenizer
from anyclaude.mlx.kv_explain.explain import Explainer, ExplainLimits
from anyclaude.mlx.memory import Machine, Preflight, PressureWatch
from anyclaude.mlx.model import Model, ModelMissingError, find_folder, load
from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.mlx.prompt.stored_folder import StoredFolder
from anyclaude.mlx.served import note_model
from anyclaude.mlx.service import WorkerService
from anyclaude.runtime import logs
from anyclaude.runtime.child import Child, ExitCode, begin
from anyclaude.runtime.paths import Paths
from anyclaude.runtime.pulse import Pulse
from anyclaude.runtime.settings import Settings
from anyclaude.runtime.sockets import RpcServer, kept_listening
from anyclaude.runtime.streams import StreamServer, stream_socket
from anyclaude.worker.v1 import worker_pb2_grpc

log = structlog.get_logger(__name__)

# For the last answers, of less than a megabyte each.
_CLOSE_SECONDS = 2.0


def main() -> NoReturn:
    child = begin()
    settings = child.birth.settings
    logs.configure(settings.log.level, console=False)
    limit_documents(settings.documents)
    mx.set_cache_limit(settings.mlx.buffer_cache_limit_bytes)
    machine = Machine()
    try:
        model = _load(settings, machine)
        weights_bytes = mx.get_active_memory()
        fingerprint = _fingerprint(model, settings)
        answers = _answers(fingerprint, settings, child.birth.paths)
        renderer = PromptRenderer(
            model.new_tokenizer(),
            spliced_bytes=settings.model.spliced_bytes if settings.model.spliced_turns else 0,
            spliced_on_request=settings.model.spliced_turns == "auto",
            stored=answers,
        )
    except memory.ShortOfMemoryError as error:
        child.leave(ExitCode.SHORT_OF_MEMORY, str(error))
    except (ModelMissingError, memory.TooLargeError, ValueError) as error:
        child.leave(ExitCode.UNAVAILABLE, str(error))
    disk = _disk(fingerprint, settings, child.birth.paths)
    # A disk tier that could not open its folder knows no other models.
    if answers is not None and disk is not None and disk.status().state is DiskState.SERVING:
        answers.remove_models(stored=disk.models())
    # Used on the MLX thread only.
    tokenizer = model.new_tokenizer()
    explainer = _explainer(model, settings, child.birth.paths, tokenizer)
    eos = frozenset(map(int, tokenizer.eos_token_ids))
    engine = _engine(
        model,
        settings,
        weights_bytes,
        disk,
        explainer,
        machine,
        pulse=child.pulse,
        eos_token_ids=eos,
    )
    pressure = PressureWatch(machine, settings.cache.pressure_check_seconds, engine.relieve)
    service = WorkerService(
        model,
        engine,
        weights_bytes=weights_bytes,
        decode_tokenizer=tokenizer,
        renderer=renderer,
        explainer=explainer,
        disk=disk,
        answers=answers,
        machine=machine,
        pressure=pressure,
        change=note_model(
            child.birth.paths.cache / "served.json",
            model.info.id,
            fingerprint,
            disk.models() if disk else {},
            time.time(),
        ),
        settings=settings,
    )
    pressure.start()
    if disk is not None:
        disk.on_writable(lambda: engine.call(engine.store.save_missing))
    exchange = Exchange(engine, model, fingerprint, disk)
    caches = CacheService(
        engine, service, exchange, explainer, disk, spliced=renderer.spliced, answers=answers
    )
    serving = Serving(service, caches, child)
    serving.start()

    def on_sigterm(_: int, __: FrameType | None) -> None:
        engine.stop(settings.mlx.stop_grace_seconds)

    signal.signal(signal.SIGTERM, on_sigterm)
    child.ready({"model": model.info.id})
    log.info("worker ready", model=model.info.id, window=model.info.context_window_tokens)
    if problem := window_problem(model.info.context_window_tokens):
        log.warning("window too small", problem=problem)
    if not model.info.has_tools:
        log.warning(
            "model makes no tool calls",
            problem="its chat template offers no tools, or how it writes calls is not known here; "
            "tools that a client offers are not used. `anyclaudectl model check` says which.",
        )
    code = _serve(engine)
    serving.stop()
    if answers is not None:
        answers.close(_CLOSE_SECONDS)
    if disk is not None:
        disk.close()
    sys.stderr.flush()
    os._exit(code)


def _load(settings: Settings, machine: Machine) -> Model:
    """Loads the model after the machine's memory was checked and the wired limit set."""
    if settings.mlx.memory_check:
        folder = find_folder(settings.model.path)
        memory.check_weights(folder, machine, settings.mlx.memory_reserve_bytes)
    memory.wire(settings.mlx.wired_limit_bytes)
    return load(settings.model)


def _serve(engine: Engine) -> ExitCode:
    try:
        engine.run()
    except Exception:
        log.exception("inference failed; the worker restarts")
        return ExitCode.RETRY
    return ExitCode.OK


def _fingerprint(model: Model, settings: Settings) -> str:
    """Identifies what caches are valid for: this model, its settings and this version of MLX."""
    facts = (model.info.fingerprint, settings.cache.kv_bits, MLX_VERSIONS, RECORD_LAYOUT)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _disk(fingerprint: str, settings: Settings, paths: Paths) -> DiskTier | None:
    if not settings.cache.disk_limit_bytes:
        return None
    # Half of the time that the daemon grants for stopping; running requests get the rest.
    bounds = Bounds(
        close_seconds=settings.supervisor.stop_timeout_seconds / 2,
        max_records=settings.cache.disk_max_records,
    )
    limit = settings.cache.disk_limit_bytes
    return DiskTier(paths.cache / "kv", fingerprint, limit, bounds=bounds)


def _answers(fingerprint: str, settings: Settings, paths: Paths) -> StoredFolder | None:
    """Where answers in the model's own tokens survive a restart, as caches do."""
    if not settings.cache.disk_limit_bytes:
        return None
    return StoredFolder(paths.cache / "answers", fingerprint, settings.model.spliced_bytes)


def _explainer(
    model: Model, settings: Settings, paths: Paths, tokenizer: TokenizerWrapper
) -> Explainer:
    cache = settings.cache
    return Explainer(
        Detokenizer(
            lambda ids: str(tokenizer.decode(ids)),
            tokenizer.think_start if tokenizer.has_thinking else "",
        ),
        ExplainLimits(
            max_conversations=cache.explain_conversations,
            memory_bytes=cache.explain_memory_bytes,
            max_explanations=cache.explain_requests,
            notes_folder=paths.cache / "notes",
        ),
        model=model.info.fingerprint,
    )


def _engine(
    model: Model,
    settings: Settings,
    weights_bytes: int,
    disk: DiskTier | None,
    explainer: Explainer,
    machine: Machine,
    *,
    pulse: Pulse,
    eos_token_ids: frozenset[int],
) -> Engine:
    cache = settings.cache
    limits = StoreLimits(
        memory_limit_bytes=cache.memory_limit_bytes or memory.default_cache_limit(weights_bytes),
        prune_fraction=cache.prune_fraction,
        checkpoints_per_lineage=cache.checkpoints_per_lineage,
        max_prefixes=cache.max_prefixes,
        min_prefix_tokens=cache.min_prefix_tokens,
        live_idle_seconds=cache.live_idle_seconds,
        live_fraction=cache.live_fraction,
        kv_bits=cache.kv_bits,
        max_pinned_fraction=cache.max_pinned_fraction,
    )
    store = KVStore(
        model.weights,
        limits,
        storage=Archive(disk) if disk is not None else None,
        listeners=[explainer],
        bytes_per_token=warm_up(model.weights, cache.kv_bits),
    )
    if cache.warm_at_start and (warmed := store.warm()):
        log.info("stored prefixes are in memory", tokens=warmed)
    preflight = Preflight(machine, settings.mlx.memory_reserve_bytes, weights_bytes)
    heads = score_heads(model.config, cache.kv_bits, on_metal=mx.metal.is_available())
    return Engine(
        model.weights,
        store,
        settings.mlx,
        eos_token_ids=eos_token_ids,
        preflight=preflight if settings.mlx.memory_check else None,
        chunks=ChunkSizes(settings.mlx, score_heads=heads),
        pulse=pulse,
    )


def warm_up(weights: LanguageModel, kv_bits: int) -> float:
    """Compiles the kernels that a first request would wait for; returns cache bytes per token."""
    layers = kinds.new_layers(weights, kv_bits)
    prefill(weights, layers, [0, 0])
    mx.eval(weights(mx.array([[0]]), cache=layers))
    return kinds.bytes_per_token(layers)


class Serving:
    """The two sockets, on their side thread."""

    def __init__(self, service: WorkerService, caches: CacheService, child: Child) -> None:
        self._service = service
        self._caches = caches
        self._socket = child.birth.socket_path
        self._pulse = child.pulse
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._run(),), name="grpc", daemon=True
        )

    def start(self) -> None:
        """Returns once the socket answers."""
        self._thread.start()
        self._listening.wait()

    def stop(self) -> None:
        """Sends the remaining events and closes the socket."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        server = RpcServer(self._socket, self._add_services)
        await server.start()
        streams = StreamServer(stream_socket(self._socket), self._service.generate)
        await streams.start()
        self._pulse.keep_beating()
        self._listening.set()
        async with kept_listening(server, streams):
            await self._stop.wait()
        await asyncio.gather(server.stop(1.0), streams.stop(1.0))

    def _add_services(self, server: grpc.aio.Server) -> None:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(self._service, server)  # type: ignore[no-untyped-call]
        cache_pb2_grpc.add_CacheServiceServicer_to_server(self._caches, server)  # type: ignore[no-untyped-call]
