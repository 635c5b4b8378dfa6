"""Two processes that only pass bytes on: the least that a front end and a worker can cost.

    python -m benchmarks.forwarding --listen PORT_OR_PATH --to PORT_OR_PATH

Nothing is parsed: requests, and each piece of a response, are passed on as they arrive.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import uvloop


class _Side(asyncio.Protocol):
    """Passes everything that one side sends on to the other."""

    other: asyncio.Transport | None = None

    def __init__(self) -> None:
        self._early = bytearray()

    def pass_to(self, other: asyncio.Transport) -> None:
        self.other = other
        other.write(bytes(self._early))

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        else:
            self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


class _Accepted(_Side):
    def __init__(self, to: str) -> None:
        super().__init__()
        self._to = to
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's classes.
        self._connecting = asyncio.ensure_future(self._connect(cast(asyncio.Transport, transport)))

    async def _connect(self, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        if self._to.isdigit():
            onward, side = await loop.create_connection(_Side, "127.0.0.1", int(self._to))
        else:
            onward, side = await loop.create_unix_connection(_Side, self._to)
        side.pass_to(transport)
        self.pass_to(onward)


async def _serve(listen: str, to: str) -> None:
    loop = asyncio.get_running_loop()
    if listen.isdigit():
        server = await loop.create_server(lambda: _Accepted(to), "127.0.0.1", int(listen))
    else:
        server = await loop.create_unix_server(lambda: _Accepted(to), listen)
    port = server.sockets[0].getsockname()[1] if listen.isdigit() else listen
    print(port, flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def _process(listen: str, to: str) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.forwarding", "--listen", listen, "--to", to]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@contextlib.contextmanager
def forwarded(url: str) -> Iterator[str]:
    """The address at which the loopback server `url` is reached through both processes."""
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        _process(str(Path(folder) / "socket"), url.rpartition(":")[2]) as socket,
        _process("0", socket) as port,
    ):
        yield f"http://127.0.0.1:{port}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--to", required=True)
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments.listen, arguments.to))


if __name__ == "__main__":
    main()
