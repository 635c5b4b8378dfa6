"""Says no while there is no front end to answer, so that nobody waits for ever.

The daemon keeps the HTTP socket listening for the next front end. When the supervisor has given up
on it, clients would hang in the backlog; here they are told at once what is wrong and what to do.
"""

import asyncio
import contextlib
import json
import secrets
import socket
from typing import Final

from anyclaude.messages.errors import ApiError
from anyclaude.supervisor.changes import Changes
from anyclaude.supervisor.child import SupervisedChild
from anyclaude.supervisor.routes import why_not_ready
from anyclaude.supervisor.supervisor import State

# A request is read until it pauses this long: closing on unread bytes would lose the answer.
_PAUSE_SECONDS: Final = 0.2
_LONGEST_SECONDS: Final = 10.0
_READ_BYTES: Final = 65_536


async def stand_in(listener: socket.socket, frontend: SupervisedChild, changes: Changes) -> None:
    """Answers while `frontend` is FATAL; runs until cancelled."""
    server: asyncio.Server | None = None
    version = -1
    try:
        while True:
            version = await changes.after(version)
            if frontend.state is State.FATAL and server is None:
                server = await _serve(listener, frontend)
            elif frontend.state is not State.FATAL and server is not None:
                server.close()
                server = None
    finally:
        if server is not None:
            server.close()


async def _serve(listener: socket.socket, frontend: SupervisedChild) -> asyncio.Server:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await _read_all(reader)
            now = asyncio.get_running_loop().time()
            writer.write(_refusal(why_not_ready(frontend, now)))
            await writer.drain()
        writer.close()

    # A copy: the server closes the one it is given.
    copy = listener.dup()
    copy.setblocking(False)
    return await asyncio.start_server(refuse, sock=copy)


async def _read_all(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_SECONDS):
            while await asyncio.wait_for(reader.read(_READ_BYTES), _PAUSE_SECONDS):
                pass


def _refusal(reason: str) -> bytes:
    request_id = f"req_{secrets.token_hex(12)}"
    error = ApiError(529, reason, should_retry=False)
    body = json.dumps(error.envelope(request_id)).encode()
    hints = "".join(f"{name}: {value}\r\n" for name, value in error.headers().items())
    head = (
        "HTTP/1.1 529 Overloaded\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        f"request-id: {request_id}\r\n"
        f"{hints}"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
