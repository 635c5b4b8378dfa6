"""Calls of the daemon's control API, for what operators ask over HTTP.

Messages never need the daemon; only these endpoints do, and they answer 503 without it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from anyclaude.messages.errors import ApiError
from anyclaude.runtime.channels import aio_channel
from anyclaude.runtime.paths import Paths

# What the caller asked for cannot be done: the daemon's message says why.
_REFUSALS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
}


@asynccontextmanager
async def ask_daemon(paths: Paths) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the daemon; an error of a call on it becomes an HTTP error.

    Raises:
        ApiError: 503 when the daemon does not answer, 400 or 409 when it refuses.
    """
    async with aio_channel(paths.control_socket) as channel:
        try:
            yield channel
        except grpc.aio.AioRpcError as error:
            if error.code() in _REFUSALS:
                raise ApiError(_REFUSALS[error.code()], error.details() or "") from None
            raise ApiError(
                503,
                f"The daemon does not answer ({error.code().name}). "
                "`anyclaudectl status` says more.",
            ) from None


def stub(kind: Any, channel: grpc.aio.Channel) -> Any:
    """A generated stub; the generated classes have no types."""
    return kind(channel)
