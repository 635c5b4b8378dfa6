"""Turns gRPC errors into command errors; only here do status codes become exit codes."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import grpc

from anyclaude.cli.command import CommandError, ExitCode

ERROR_DOMAIN: Final = "anyclaude"

_EXIT_CODES: Final[Mapping[grpc.StatusCode, ExitCode]] = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.USAGE,
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION: ExitCode.PRECONDITION,
    grpc.StatusCode.ABORTED: ExitCode.PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.PRECONDITION,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.TIMEOUT,
}


def is_installed() -> bool:
    """Whether the platform runs the daemon as a service of this user."""
    # The service's modules import this one.
    from anyclaude.cli.service.lifecycle import find_manager

    return find_manager(sys.platform, os.environ).file.exists()


def how_to_start() -> str:
    """The command that starts the daemon on this machine."""
    if is_installed():
        return "Start it: `anyclaudectl service start`."
    return (
        "Install it as a service: `anyclaudectl service install`. "
        "Or run it in a terminal: `anyclauded`, or `make run` in a checkout."
    )


def how_to_replace() -> str:
    """The command that ends a daemon of another version, so that the installed one takes over."""
    if is_installed():
        return "Replace it: `anyclaudectl service install`."
    return "End it: `anyclaudectl shutdown`. Then start it as before."


def not_running(socket_path: Path) -> CommandError:
    """There is no socket: no daemon was started with this home folder."""
    return CommandError(
        ExitCode.NOT_RUNNING,
        f"anyclauded is not running: its socket {socket_path} is missing. {how_to_start()}",
    )


def nobody_listens(socket_path: Path) -> CommandError:
    """The socket file is left over from a daemon that has ended."""
    return CommandError(
        ExitCode.NOT_RUNNING,
        f"anyclauded is not running: nothing listens on {socket_path}. "
        f"A daemon that was killed left this file behind. {how_to_start()}",
    )


def no_answer(socket_path: Path, seconds: float) -> CommandError:
    """A process listens on the socket but does not answer."""
    return CommandError(
        ExitCode.TIMEOUT,
        f"anyclauded does not answer on {socket_path} within {seconds:g} s. "
        "It is overloaded or stuck: see `anyclaudectl logs`.",
    )


def unreachable(socket_path: Path, error: OSError) -> CommandError:
    """The socket exists, but this user may not use it."""
    return CommandError(
        ExitCode.FAILED,
        f"{socket_path} cannot be used: {error.strerror or error}. "
        "The daemon answers only the user who started it; see ANYCLAUDE_HOME.",
    )


def explain(error: grpc.RpcError, socket_path: Path) -> CommandError:
    """Returns the command error for a failed call; the daemon's own message is kept."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        # With our error domain the daemon itself answered: a worker behind it is unavailable.
        if _is_ours(error):
            return CommandError(ExitCode.PRECONDITION, details)
        return CommandError(
            ExitCode.NOT_RUNNING,
            f"anyclauded ended during the call on {socket_path}. "
            f"See `anyclaudectl logs`. {how_to_start()}",
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return CommandError(
            ExitCode.FAILED,
            "The running daemon does not know this request: it has another version "
            f"(`anyclaudectl version`). {how_to_replace()}",
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not _is_ours(error):
        details = "The daemon did not answer in time. See `anyclaudectl logs`."
    exit_code = _EXIT_CODES.get(code, ExitCode.FAILED)
    return CommandError(exit_code, details or f"The daemon answered {code.name}.")


def _is_ours(error: grpc.RpcError) -> bool:
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    status = rpc_status.from_call(error)
    if status is None:
        return False
    info = error_details_pb2.ErrorInfo()
    return any(
        detail.Unpack(info) and info.domain == ERROR_DOMAIN
        for detail in status.details
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    )
