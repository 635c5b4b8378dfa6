"""gRPC failures as command errors: the one place where status codes become exit codes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import grpc

from anyclaude.cli.command import CommandError, ExitCode

ERROR_DOMAIN: Final = "anyclaude"
HOW_TO_START: Final = (
    "Start it: `anyclaudectl service start` when the service is installed, "
    "else `make run` in the checkout or `anyclauded`."
)

_EXIT_CODES: Final[Mapping[grpc.StatusCode, ExitCode]] = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.USAGE,
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION: ExitCode.PRECONDITION,
    grpc.StatusCode.ABORTED: ExitCode.PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.PRECONDITION,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.TIMEOUT,
}


def not_running(socket_path: Path) -> CommandError:
    """No socket: no daemon was started under this home."""
    return CommandError(
        ExitCode.NOT_RUNNING,
        f"anyclauded is not running: its socket {socket_path} is missing. {HOW_TO_START}",
    )


def nobody_listens(socket_path: Path) -> CommandError:
    """A socket file that outlived its daemon."""
    return CommandError(
        ExitCode.NOT_RUNNING,
        f"anyclauded is not running: nothing listens on {socket_path}, "
        f"which a daemon that was killed left behind. {HOW_TO_START}",
    )


def no_answer(socket_path: Path, seconds: float) -> CommandError:
    """Somebody listens and says nothing."""
    return CommandError(
        ExitCode.TIMEOUT,
        f"anyclauded does not answer on {socket_path} within {seconds:g} s. "
        "It is overloaded or stuck: see `anyclaudectl logs`.",
    )


def unreachable(socket_path: Path, error: OSError) -> CommandError:
    """The socket is there and this user may not use it."""
    return CommandError(
        ExitCode.FAILED,
        f"{socket_path} cannot be used: {error.strerror or error}. "
        "The daemon answers the user who started it alone; see ANYCLAUDE_HOME.",
    )


def explain(error: grpc.RpcError, socket_path: Path) -> CommandError:
    """The command error of a failed call; the daemon's own sentence is the message."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        # With our domain the daemon itself speaks: something behind it is not there yet.
        if _is_ours(error):
            return CommandError(ExitCode.PRECONDITION, details)
        return CommandError(
            ExitCode.NOT_RUNNING,
            f"anyclauded went away during the call on {socket_path}. "
            f"See `anyclaudectl logs`. {HOW_TO_START}",
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return CommandError(
            ExitCode.FAILED,
            "The running daemon does not know this request: it is of another version "
            "(`anyclaudectl version`). Restart it.",
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
