"""Who listens on a TCP port of this machine."""

from dataclasses import dataclass
from typing import Final

import psutil

# A daemon of macOS that listens on a port from 49152 on, where our default is.
_RAPPORTD: Final = "rapportd"


@dataclass(frozen=True)
class PortOwner:
    """The process that listens on a port."""

    pid: int
    name: str
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command[:200]})"

    @property
    def may_be_stopped(self) -> bool:
        """False for the process of macOS that Handoff and AirDrop need."""
        return self.name != _RAPPORTD


def port_owner(port: int) -> PortOwner | None:
    """The process that listens on `port`; None when it is hidden from us, or there is none."""
    for process in psutil.process_iter():
        try:
            if _listens(process, port):
                return PortOwner(process.pid, process.name(), " ".join(process.cmdline()))
        except psutil.Error:
            # Another user's process, or one that just ended.
            continue
    return None


def explain_owner(port: int) -> str:
    """Says by whom a port that cannot be bound is taken, and whether that can be stopped."""
    owner = port_owner(port)
    if owner is None:
        return (
            "it is taken by a process of another user, which "
            f"`sudo lsof -nP -iTCP:{port} -sTCP:LISTEN` names."
        )
    if not owner.may_be_stopped:
        return f"it is taken by {owner}, which belongs to macOS (Handoff, AirDrop): do not stop it."
    return f"it is taken by {owner}, which you can stop."


def _listens(process: psutil.Process, port: int) -> bool:
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for connection in process.net_connections("tcp")
    )
