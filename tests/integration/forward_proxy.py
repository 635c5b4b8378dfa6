"""A forward proxy in a process of its own: CONNECT, absolute URIs, and Basic credentials.

It resolves no name: every host is this machine, so a test can send requests to hosts that no
network has.
"""

import argparse
import asyncio
import base64
import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

_NEEDS_CREDENTIALS = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)


class ForwardProxy:
    """Starts the process and ends it; a context manager.

    Args:
        credentials: "user:password" that every request must carry; empty asks for none.
    """

    def __init__(self, credentials: str = "") -> None:
        self._credentials = credentials

    def __enter__(self) -> Self:
        with tempfile.NamedTemporaryFile(prefix="ac-proxy-", delete=False) as log:
            self._log = Path(log.name)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.forward_proxy", str(self._log)]
            + ([self._credentials] if self._credentials else []),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = f"127.0.0.1:{self._process.stdout.readline().strip()}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.unlink()

    @property
    def requests(self) -> list[str]:
        """Method and target of each request that it accepted."""
        return self._log.read_text().splitlines()


async def _serve(log: Path, credentials: str) -> None:
    wanted = "Basic " + base64.b64encode(credentials.encode()).decode()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            sent = next((line for line in lines if line.lower().startswith("proxy-auth")), ": ")
            if credentials and sent.split(": ", 1)[1] != wanted:
                writer.write(_NEEDS_CREDENTIALS)
                await writer.drain()
                return
            with log.open("a") as file:
                file.write(f"{method} {target}\n")
            await _pass_on(reader, writer, method, target, lines)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _pass_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    target: str,
    lines: list[str],
) -> None:
    url = urlsplit(target if "://" in target else f"//{target}")
    there, to_server = await asyncio.open_connection("127.0.0.1", url.port)
    with contextlib.closing(to_server):
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = f"{url.path}?{url.query}" if url.query else url.path
            kept = [line for line in lines if not line.lower().startswith("proxy-")]
            to_server.write("\r\n".join([f"{method} {path} HTTP/1.1", *kept]).encode("latin-1"))
        copies = [
            asyncio.ensure_future(_copy(reader, to_server)),
            asyncio.ensure_future(_copy(there, writer)),
        ]
        # Whoever ends the connection first ends it for both sides.
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for copy in copies:
            copy.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("credentials", nargs="?", default="")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.log, arguments.credentials))


if __name__ == "__main__":
    main()
