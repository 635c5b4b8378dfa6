"""The HTTP socket: the daemon binds it once and each front end inherits it.

The socket listens from the start, so while a front end restarts clients wait in the backlog instead
of being refused. When the supervisor has given up on the front end, the daemon itself responds to
each request with status 529 and the reason.
"""

import asyncio
import contextlib
import errno
import socket
from typing import Final

from anyclaude.messages.errors import ApiError
from anyclaude.runtime.ports import explain_owner
from anyclaude.runtime.settings import ServerSettings
from anyclaude.supervisor.changes import Changes
from anyclaude.supervisor.child import SupervisedChild
from anyclaude.supervisor.routes import why_not_ready
from anyclaude.supervisor.supervisor import State

BACKLOG: Final = 512
# A request is read until it pauses this long: closing on unread bytes would lose the response.
_PAUSE_SECONDS: Final = 0.2
_LONGEST_SECONDS: Final = 10.0
_READ_BYTES: Final = 65_536


class PortTakenError(Exception):
    """Another process listens on the port; the message names it and says what to do."""


def listen(settings: ServerSettings) -> socket.socket:
    """Binds and listens; port 0 means any free port.

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
    return (
        f"Cannot listen on {settings.host} port {settings.port}: {_reason(settings.port, error)} "
        "Choose another port: anyclauded --port N, ANYCLAUDE_PORT=N, or server.port in the config; "
        "for the installed service `ANYCLAUDE_PORT=N anyclaudectl service install`."
    )


def _reason(port: int, error: OSError) -> str:
    if error.errno != errno.EADDRINUSE:
        return f"{error.strerror or error}."
    return explain_owner(port)


async def refuse_without_frontend(
    listener: socket.socket, frontend: SupervisedChild, changes: Changes
) -> None:
    """Answers every request with 529 while `frontend` is FATAL; runs until cancelled."""
    server: asyncio.Server | None = None
    version = -1
    try:
        while True:
            version = await changes.after(version)
            if frontend.state is State.FATAL and server is None:
                server = await _serve_refusals(listener, frontend)
            elif frontend.state is not State.FATAL and server is not None:
                server.close()
                server = None
    finally:
        if server is not None:
            server.close()


async def _serve_refusals(listener: socket.socket, frontend: SupervisedChild) -> asyncio.Server:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await _read_all(reader)
            now = asyncio.get_running_loop().time()
            error = ApiError(529, why_not_ready(frontend, now), should_retry=False)
            writer.write(error.http_response())
            await writer.drain()
        writer.close()

    # The server closes the socket it is given, so it gets a copy.
    copy = listener.dup()
    copy.setblocking(False)
    return await asyncio.start_server(refuse, sock=copy)


async def _read_all(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_SECONDS):
            while await asyncio.wait_for(reader.read(_READ_BYTES), _PAUSE_SECONDS):
                pass
