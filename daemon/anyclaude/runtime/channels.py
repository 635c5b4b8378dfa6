"""gRPC over unix sockets: one set of channel and server options for every contract.

The options are there for four reasons. Back-pressure must reach the sender: by default a server may
be 20,000 messages ahead. A prompt of Claude Code's usual size must fit into the window, so that it
is not sent in parts. A restarted worker must be found within a quarter of a second. A prompt with
images is larger than gRPC's default limit of 4 MiB.
"""

import os

# Before grpc is imported: its fork handlers print warnings whenever a supervisor spawns a child.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from pathlib import Path
from typing import Final

import grpc
import grpc.aio

MAX_MESSAGE_BYTES: Final = 40 * 1024 * 1024

Option = tuple[str, int]

_COMMON: Final[tuple[Option, ...]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.bdp_probe", 0),
)

CHANNEL_OPTIONS: Final[tuple[Option, ...]] = (
    *_COMMON,
    ("grpc.http2.lookahead_bytes", 65_536),
    ("grpc.initial_reconnect_backoff_ms", 50),
    # In spite of its name, how long an attempt to connect may take: on a busy machine, seconds.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 250),
    # A proxy variable in the shell must never redirect local traffic.
    ("grpc.enable_http_proxy", 0),
    # Channels to one address share a connection pool otherwise, and die together.
    ("grpc.use_local_subchannel_pool", 1),
)

SERVER_OPTIONS: Final[tuple[Option, ...]] = (
    *_COMMON,
    ("grpc.http2.lookahead_bytes", 4 * 1024 * 1024),
    ("grpc.so_reuseport", 0),
)


def target(socket_path: Path | str) -> str:
    """The gRPC address of a unix socket."""
    return f"unix:{socket_path}"


def aio_channel(socket_path: Path | str) -> grpc.aio.Channel:
    """An asyncio channel to the server behind `socket_path`; connects lazily."""
    return grpc.aio.insecure_channel(target(socket_path), options=CHANNEL_OPTIONS)


def sync_channel(socket_path: Path | str) -> grpc.Channel:
    """A blocking channel, for commands that make one call and end."""
    return grpc.insecure_channel(target(socket_path), options=CHANNEL_OPTIONS)


def aio_server() -> grpc.aio.Server:
    """A server with our options; the caller adds services and a socket."""
    return grpc.aio.server(options=SERVER_OPTIONS)


def bind(server: grpc.aio.Server, socket_path: Path) -> None:
    """Listens on `socket_path`, private to this user.

    The caller has the lock under which no other process binds the path: gRPC would silently replace
    a socket in use.
    """
    socket_path.unlink(missing_ok=True)
    previous = os.umask(0o177)
    try:
        server.add_insecure_port(target(socket_path))
    finally:
        os.umask(previous)
