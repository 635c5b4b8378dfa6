"""The HTTP socket: bound once by the daemon, served by one front end after another.

It listens from the start, so that while a front end restarts, clients wait in the backlog instead
of being refused.
"""

import socket
from typing import Final

import psutil

from anyclaude.runtime.settings import ServerSettings

BACKLOG: Final = 512


class PortTakenError(Exception):
    """Somebody else listens there; the message says who and what to do."""


def listen(settings: ServerSettings) -> socket.socket:
    """Binds and listens; port 0 takes a free one.

    Raises:
        PortTakenError: the port is taken, or may not be bound.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PortTakenError(_explain(settings, error)) from None
    return listener


def base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _explain(settings: ServerSettings, error: OSError) -> str:
    owner = _owner_of(settings.port)
    why = f"it is taken by {owner}" if owner else str(error.strerror or error)
    return (
        f"Cannot listen on {settings.host} port {settings.port}: {why}. Stop that process, or "
        "choose another port: anyclauded --port N, ANYCLAUDE_PORT=N, or server.port in the config."
    )


def _owner_of(port: int) -> str:
    """ "pid 12 (python -m http.server)"; empty when the process is hidden from us."""
    for process in psutil.process_iter():
        try:
            if _listens(process, port):
                return f"pid {process.pid} ({' '.join(process.cmdline())[:200]})"
        except psutil.Error:
            # Another user's process, or one that just ended.
            continue
    return ""


def _listens(process: psutil.Process, port: int) -> bool:
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for connection in process.net_connections("tcp")
    )
