"""The daemon's state as the control API shows it."""

import os
import time
from collections.abc import Callable
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from anyclaude.control.v1 import control_pb2
from anyclaude.daemon.child import SupervisedChild
from anyclaude.daemon.daemon import VERSION, Daemon
from anyclaude.daemon.routes import why_not_ready
from anyclaude.daemon.supervisor import Exit, State
from anyclaude.worker.v1 import worker_pb2

_STATES: Final = {
    State.STOPPED: control_pb2.WORKER_STATE_STOPPED,
    State.STARTING: control_pb2.WORKER_STATE_STARTING,
    State.READY: control_pb2.WORKER_STATE_READY,
    State.STOPPING: control_pb2.WORKER_STATE_STOPPING,
    State.BACKOFF: control_pb2.WORKER_STATE_BACKOFF,
    State.FATAL: control_pb2.WORKER_STATE_FATAL,
}
_BROKEN: Final = frozenset({State.BACKOFF, State.FATAL})


async def status(daemon: Daemon) -> control_pb2.Status:
    """Everything `anyclaudectl status` shows; waits at most a glance for the worker."""
    mode = daemon.mode.get()
    worker = daemon.workers.get(mode.worker)
    seen = await worker.glance() if worker else None
    answer = control_pb2.Status(
        version=VERSION,
        pid=os.getpid(),
        start_time=timestamp(daemon.start_time),
        readiness=readiness(daemon),
        problems=problems(daemon),
        mode=mode.name,
        base_url=daemon.base_url,
        workers=workers(daemon),
        home=daemon.home,
    )
    if seen is not None:
        answer.model.CopyFrom(seen.model)
        answer.memory.CopyFrom(seen.memory)
        if seen.HasField("disk"):
            answer.disk.CopyFrom(seen.disk)
            answer.problems.extend(_disk_problems(seen.disk))
        answer.running_requests = seen.running_requests
    return answer


def readiness(daemon: Daemon) -> control_pb2.Readiness:
    if any(child.state in _BROKEN for child in daemon.crew):
        return control_pb2.READINESS_DEGRADED
    if daemon.routes.serves(daemon.mode.get()):
        return control_pb2.READINESS_READY
    return control_pb2.READINESS_STARTING


def problems(daemon: Daemon) -> list[str]:
    now = daemon.clock()
    return [why_not_ready(child, now) for child in daemon.crew if child.state in _BROKEN]


def _disk_problems(disk: worker_pb2.DiskStatus) -> list[str]:
    if disk.state == worker_pb2.DISK_STATE_SERVING:
        return []
    why = disk.last_error or "another service uses the folder"
    return [f"KV caches do not reach the disk ({why}); serving goes on. Folder: {disk.folder}"]


def workers(daemon: Daemon) -> list[control_pb2.Worker]:
    return [worker(child, daemon.clock) for child in daemon.crew]


def worker(child: SupervisedChild, clock: Callable[[], float]) -> control_pb2.Worker:
    """One child; times of the monotonic `clock` become wall times."""
    supervisor = child.supervisor
    wall_offset = time.time() - clock()

    def wall(moment: float | None) -> Timestamp | None:
        return None if moment is None else timestamp(moment + wall_offset)

    return control_pb2.Worker(
        name=child.name,
        state=_STATES[child.state],
        pid=child.pid or 0,
        start_time=wall(supervisor.started_at) if child.pid else None,
        ready_time=wall(supervisor.ready_at),
        restart_count=supervisor.restart_count,
        generation=supervisor.generation,
        last_exit=_last_exit(supervisor.last_exit, wall(supervisor.last_exit_at)),
        next_retry_time=wall(supervisor.retry_at),
    )


def _last_exit(exit_: Exit | None, at: Timestamp | None) -> control_pb2.LastExit | None:
    if exit_ is None:
        return None
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
