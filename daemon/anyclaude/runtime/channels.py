"""gRPC over unix sockets: one set of channel and server options for every contract.

Why each option: back-pressure must reach the sender (the default lets a server run 20,000 messages
ahead), a prompt of Claude Code's usual size must not wait half-way for room, a restarted worker
must be found again within a quarter of a second, and a prompt with images is larger than gRPC's
4 MiB default.
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
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
    # A proxy variable in the shell must never carry local traffic away.
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

    The caller owns the path: it holds the lock under which no other process binds it (grpc takes a
    taken path away silently).
    """
    socket_path.unlink(missing_ok=True)
    previous = os.umask(0o177)
    try:
        server.add_insecure_port(target(socket_path))
    finally:
        os.umask(previous)
