"""The servers behind relayed modes, as the daemon sees them: are they there, and if not, why.

A server on this machine is asked in passing; any other only when somebody chooses its mode.
"""

import asyncio
from typing import Final

from anyclaude.supervisor.daemon import Daemon
from anyclaude.supervisor.modes import Mode
from anyclaude.supervisor.routes import why_not_ready
from anyclaude.supervisor.supervisor import State
from anyclaude.worker.v1 import worker_pb2

# How soon a server that came up is noticed.
_ASK_AGAIN_SECONDS: Final = 2.0
# Connecting and two questions, each with a time limit of its own in the relay.
CHECK_SECONDS: Final = 30.0


def why_not(daemon: Daemon, mode: Mode) -> str:
    """Why requests in `mode` would not be answered, by what is known; empty when they would."""
    if mode.missing:
        return f"This mode cannot be used: {mode.missing}."
    worker = daemon.workers.get(mode.worker)
    if worker is None:
        return f"This daemon runs no {mode.worker} worker."
    if worker.child.state is not State.READY:
        return why_not_ready(worker.child, daemon.clock())
    return _why_unreachable(mode, worker.upstream(mode.name)) if mode.is_relayed else ""


def _why_unreachable(mode: Mode, upstream: worker_pb2.UpstreamStatus | None) -> str:
    if upstream is None:
        return "The relay worker has said nothing of its server yet."
    if mode.key_variable and not upstream.has_key:
        return (
            f"Its key is missing. Set {mode.key_variable} where anyclauded starts, "
            f"or upstreams.{mode.name}.api_key_file."
        )
    if upstream.reachability == worker_pb2.REACHABILITY_UNREACHABLE:
        return upstream.last_error or "Its server does not answer."
    return ""


async def watch_current(daemon: Daemon) -> None:
    """Asks the current mode's server again while it is away; runs until cancelled."""
    while True:
        version = daemon.changes.version
        mode = daemon.mode.get()
        if mode.is_relayed and not mode.is_remote and why_not(daemon, mode):
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
            await daemon.workers[mode.worker].glance()
        else:
            await daemon.changes.after(version)
