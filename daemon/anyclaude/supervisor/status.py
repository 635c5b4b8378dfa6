"""The daemon's state as the control API shows it."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from anyclaude.control.v1 import control_pb2
from anyclaude.runtime.settings import NEAR_WORKING_SET
from anyclaude.supervisor.child import SupervisedChild
from anyclaude.supervisor.daemon import VERSION, Daemon
from anyclaude.supervisor.modes import CACHE_WORKER, OWN_MODE, Mode
from anyclaude.supervisor.records import running
from anyclaude.supervisor.routes import why_not_ready
from anyclaude.supervisor.supervisor import Exit, State
from anyclaude.worker.v1 import worker_pb2

# Of each death in the list; the last exit has 8 KiB.
_DEATH_TAIL_CHARACTERS: Final = 1024
_BROKEN: Final = frozenset({State.ABORTING, State.BACKOFF, State.FATAL})


async def status(daemon: Daemon) -> control_pb2.Status:
    """Everything `anyclaudectl status` shows; waits at most one second for the workers."""
    mode = daemon.mode.get()
    seen, requests = await asyncio.gather(_glances(daemon, mode), running(daemon.children.frontend))
    answer = control_pb2.Status(
        version=VERSION,
        pid=os.getpid(),
        start_time=timestamp(daemon.start_time),
        readiness=readiness(daemon),
        running_requests=sum(known.running_requests for known in seen.values()),
        problems=problems(daemon),
        mode=mode.name,
        base_url=daemon.base_url,
        workers=workers(daemon),
        home=daemon.home,
        is_serving=daemon.routes.serves(mode),
        requests=requests,
    )
    worker = daemon.workers.get(mode.worker)
    if worker and (model := worker.model(mode.name)):
        answer.model.CopyFrom(model)
    # The caches stay in memory in every mode.
    if CACHE_WORKER in seen:
        _add_caches(answer, seen[CACHE_WORKER])
        answer.loosened_schemas.extend(seen[CACHE_WORKER].loosened_schemas)
        answer.batch.CopyFrom(seen[CACHE_WORKER].batch)
        answer.blas = seen[CACHE_WORKER].blas
        answer.notices.extend(_notices(seen[CACHE_WORKER]))
        answer.notices.extend(batch_notices(answer.batch))
        answer.notices.extend(wired_notices(answer.memory))
    if worker and mode.is_relayed:
        answer.notices.extend(_learned_notices(mode, worker.upstream(mode.name)))
    answer.notices.extend(tool_notices(answer.model))
    if mode.worker == CACHE_WORKER:
        answer.problems.extend(memory_problems(answer.memory))
    return answer


async def _glances(daemon: Daemon, mode: Mode) -> dict[str, worker_pb2.GetStatusResponse]:
    """The current status of the mode's worker and of the worker with the caches."""
    chosen = {n: w for n, w in daemon.workers.items() if n in (mode.worker, CACHE_WORKER)}
    found = await asyncio.gather(*(worker.glance() for worker in chosen.values()))
    return {name: seen for name, seen in zip(chosen, found, strict=True) if seen is not None}


def _add_caches(answer: control_pb2.Status, seen: worker_pb2.GetStatusResponse) -> None:
    answer.memory.CopyFrom(seen.memory)
    if seen.HasField("disk"):
        answer.disk.CopyFrom(seen.disk)
        if found := _disk_problems(seen.disk):
            answer.problems.extend(found)
            answer.readiness = control_pb2.READINESS_DEGRADED


def readiness(daemon: Daemon) -> control_pb2.Readiness:
    if any(child.state in _BROKEN for child in daemon.children) or _server_problems(daemon):
        return control_pb2.READINESS_DEGRADED
    if daemon.routes.serves(daemon.mode.get()):
        return control_pb2.READINESS_READY
    return control_pb2.READINESS_STARTING


def problems(daemon: Daemon) -> list[str]:
    now = daemon.clock()
    broken = [why_not_ready(child, now) for child in daemon.children if child.state in _BROKEN]
    return broken + _server_problems(daemon) + _foreign_caches(daemon.mode.get())


def _server_problems(daemon: Daemon) -> list[str]:
    """Why the server behind the current mode does not answer."""
    mode = daemon.mode.get()
    worker = daemon.workers.get(mode.worker)
    if not mode.is_relayed or worker is None or worker.upstream(mode.name) is None:
        return []
    reason = daemon.why_not(mode) if worker.child.state is State.READY else ""
    return [f"Mode {mode.name} is not ready. {reason}"] if reason else []


def _foreign_caches(mode: Mode) -> list[str]:
    if not (mode.name == OWN_MODE and mode.is_relayed):
        return []
    return [
        f"Mode {mode.name} is {mode.description}: nothing here is reused or shown of them. "
        "Unset MLX_LM_URL (upstreams.mlx-lm.base_url) and restart to be answered by our own worker."
    ]


def _disk_problems(disk: worker_pb2.DiskStatus) -> list[str]:
    if disk.state == worker_pb2.DISK_STATE_SERVING:
        return []
    why = disk.last_error or "another service uses the folder"
    return [
        f"KV caches do not reach the disk ({why}); requests are answered. Folder: {disk.folder}"
    ]


def memory_problems(memory: worker_pb2.MemoryStatus) -> list[str]:
    """A warning when the KV cache of one Claude Code prompt does not fit into memory."""
    needed = f"The KV cache of one Claude Code prompt takes about {_gigabytes(memory.prompt_bytes)}"
    smaller = "a smaller model, cache.kv_bits = 8, or `anyclaudectl mode lmstudio` takes less"
    if memory.prompt_bytes > memory.cache_limit_bytes:
        return [
            f"{needed}, and all caches may take {_gigabytes(memory.cache_limit_bytes)}: it is "
            f"computed again for each request. Raise cache.memory_limit_bytes; {smaller}."
        ]
    if memory.pressure == worker_pb2.MEMORY_PRESSURE_CRITICAL:
        return [
            f"This machine is short of memory: {_gigabytes(memory.available_bytes)} are available. "
            f"Idle KV caches have left memory for the disk. Close other programs; {smaller}."
        ]
    # Memory that caches already use is available to this prompt: caches are extended or evicted.
    if memory.prompt_bytes > memory.available_bytes + memory.cache_bytes:
        return [
            f"{needed}, and {_gigabytes(memory.available_bytes)} of this machine's memory are "
            f"available: it may become slow. Close other programs; {smaller}."
        ]
    return []


def wired_notices(memory: worker_pb2.MemoryStatus) -> list[str]:
    """A notice when the model is so near to the limit of Metal that macOS may slow it down."""
    needed, most = memory.weights_bytes + memory.prompt_bytes, memory.working_set_bytes
    if not most or needed <= NEAR_WORKING_SET * most:
        return []
    weights, prompt = _gigabytes(memory.weights_bytes), _gigabytes(memory.prompt_bytes)
    return [
        f"The model ({weights}) and the KV cache of one Claude Code prompt ({prompt}) take most of "
        f"the {_gigabytes(most)} that Metal recommends: if macOS compresses them, the model runs "
        "at a fraction of its speed. A smaller model or cache.kv_bits = 8 takes less; "
        "mlx.wired_limit_bytes keeps them in memory, with the risk that docs/cache.md describes."
    ]


def tool_notices(model: worker_pb2.ModelInfo) -> list[str]:
    """A notice if tools that a client offers are of no use."""
    if not model.HasField("has_tools") or model.has_tools:
        return []
    why = "`anyclaudectl model check` says why." if model.path else ""
    return [
        f"{model.display_name or model.id} makes no tool calls here: Claude Code can talk to it, "
        f"but not let it read or change anything. {why}".rstrip()
    ]


def _learned_notices(mode: Mode, upstream: worker_pb2.UpstreamStatus | None) -> list[str]:
    if upstream is None or not upstream.learned:
        return []
    return [
        f"Requests to {mode.name} are adapted to what its server refused: "
        f"{', '.join(upstream.learned)}. `anyclaudectl worker forget {mode.name}` forgets it."
    ]


def _notices(seen: worker_pb2.GetStatusResponse) -> list[str]:
    """The effect of a change of model on the caches."""
    if not seen.HasField("model_change"):
        return []
    change, model = seen.model_change, seen.model.id
    whose = f"KV caches of {change.previous_model}"
    if change.previous_model == model:
        whose = f"KV caches of {model} with other settings or another MLX"
    kept = "none of them is on disk"
    if change.disk_records:
        kept = (
            f"{change.disk_records} segments of them ({_gigabytes(change.disk_bytes)}) are on "
            "disk, unused until that one serves again"
        )
    return [f"The model is {model} now. {whose} have left memory; {kept}."]


def batch_notices(batch: worker_pb2.BatchStatus) -> list[str]:
    """Why parallel answers are computed one by one, if they are."""
    if batch.unsupported:
        return [
            "Parallel answers of this model are computed one by one, since it cannot compute "
            f"several in one pass: {batch.unsupported}"
        ]
    if batch.inexact_rows and not batch.exact_rows and not batch.passes:
        return [
            "Parallel answers are computed one by one, since a shared pass changes the last bits "
            f"of their logits (by at most {batch.largest_difference:.1e} of the largest one), "
            "and a pass over several tokens of one answer does not."
        ]
    return []


def _gigabytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"


def workers(daemon: Daemon) -> list[control_pb2.Worker]:
    return [worker(child, daemon.clock) for child in daemon.children]


def worker(child: SupervisedChild, clock: Callable[[], float]) -> control_pb2.Worker:
    """One child; times of the monotonic `clock` become wall times."""
    supervisor = child.supervisor
    wall_offset = time.time() - clock()

    def wall(moment: float | None) -> Timestamp | None:
        return None if moment is None else timestamp(moment + wall_offset)

    return control_pb2.Worker(
        name=child.name,
        state=f"WORKER_STATE_{child.state.name}",
        pid=child.pid or 0,
        start_time=wall(supervisor.started_at) if child.pid else None,
        ready_time=wall(supervisor.ready_at),
        restart_count=supervisor.restart_count,
        generation=supervisor.generation,
        last_exit=_last_exit(supervisor.last_exit, wall(supervisor.last_exit_at)),
        next_retry_time=wall(supervisor.retry_at),
        deaths=[
            _exit(_with_short_tail(exit_), wall(moment)) for moment, exit_ in supervisor.deaths
        ],
        makes_room_for=child.pause.mode if child.pause else "",
    )


def _last_exit(exit_: Exit | None, at: Timestamp | None) -> control_pb2.LastExit | None:
    return None if exit_ is None else _exit(exit_, at)


def _with_short_tail(exit_: Exit) -> Exit:
    return replace(exit_, stderr_tail=exit_.stderr_tail[-_DEATH_TAIL_CHARACTERS:])


def _exit(exit_: Exit, at: Timestamp | None) -> control_pb2.LastExit:
    return control_pb2.LastExit(
        code=exit_.code,
        signal=exit_.signal,
        reason=exit_.reason,
        stderr_tail=exit_.stderr_tail,
        time=at,
    )


def timestamp(seconds: float) -> Timestamp:
    answer = Timestamp()
    answer.FromNanoseconds(round(seconds * 1e9))
    return answer
