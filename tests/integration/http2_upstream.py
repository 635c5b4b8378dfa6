"""A server that speaks HTTP/2 over TLS and nothing else, by the h2 library."""

import asyncio
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import h2.config
import h2.connection
import h2.events


@dataclass
class Http2Request:
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Http2Response:
    headers: dict[str, str]
    pieces: list[bytes]
    # Whether the stream ends after its pieces; otherwise it stays open.
    ends: bool = True


Answer = Callable[[Http2Request], Http2Response]


class Http2Upstream:
    """Runs in a thread of its own; a context manager."""

    def __init__(self, answer: Answer, certificate: tuple[object, object]) -> None:
        self._answer = answer
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(*map(str, certificate))
        self._tls.set_alpn_protocols(["h2"])
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._started = threading.Event()
        self.requests: list[Http2Request] = []
        self.connections = 0
        # Set when a client has closed its connection.
        self.left = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._tasks: set[asyncio.Task[None] | None] = set()
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            assert task is not None
            task.cancel()
        await asyncio.gather(*filter(None, self._tasks), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        streams: dict[int, Http2Request] = {}
        try:
            writer.write(connection.data_to_send())
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    self._handle(connection, streams, event)
                writer.write(connection.data_to_send())
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.left.set()
            writer.close()

    def _handle(
        self,
        connection: h2.connection.H2Connection,
        streams: dict[int, Http2Request],
        event: h2.events.Event,
    ) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(stream), headers=list(headers)):
                streams[stream] = Http2Request(
                    {name.decode(): value.decode() for name, value in headers}
                )
            case h2.events.DataReceived(stream_id=int(stream), data=bytes(data)):
                streams[stream].body += data
                connection.acknowledge_received_data(event.flow_controlled_length or 0, stream)
            case h2.events.StreamEnded(stream_id=int(stream)):
                self.requests.append(streams[stream])
                response = self._answer(streams[stream])
                connection.send_headers(stream, [*response.headers.items()])
                for piece in response.pieces:
                    connection.send_data(stream, piece)
                if response.ends:
                    connection.end_stream(stream)
