"""Errors of our gRPC services: one exception, turned into a rich gRPC status in one place.

Every error carries google.rpc.ErrorInfo with an UPPER_SNAKE reason, so that scripts need not read
sentences.
"""

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN: Final = "anyclaude"
# https://grpc.io/docs/guides/error/#richer-error-model
_DETAILS_KEY: Final = "grpc-status-details-bin"

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Service = TypeVar("_Service")


@dataclass(eq=False)
class CallError(Exception):
    """A call that ends in an error the caller can act on."""

    code: grpc.StatusCode
    # UPPER_SNAKE.
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    # Set when trying again after this time may help.
    retry_seconds: float | None = None


def rpc_method(
    handler: Callable[[_Service, _Request], Awaitable[_Response]],
) -> Callable[[_Service, _Request, Any], Awaitable[_Response]]:
    """Makes a gRPC method of a handler that raises `CallError`.

    The handler does not get the context: using it after a cancellation can crash the process.
    """

    @functools.wraps(handler)
    async def method(service: _Service, request: _Request, context: Any) -> _Response:
        try:
            return await handler(service, request)
        except CallError as error:
            await abort(context, error)

    return method


async def abort(context: Any, error: CallError) -> NoReturn:
    """Ends the call of `context` with `error`."""
    details = (_DETAILS_KEY, _status(error).SerializeToString())
    await context.abort(error.code, error.message, trailing_metadata=(details,))
    raise AssertionError("abort raises")


def is_explained(error: grpc.aio.AioRpcError) -> bool:
    """Whether the other side raised a `CallError`, rather than failed or went away."""
    return _DETAILS_KEY in dict(error.trailing_metadata())


async def abort_alike(context: Any, error: grpc.aio.AioRpcError) -> NoReturn:
    """Ends the call of `context` exactly as another call ended."""
    details = [(key, value) for key, value in error.trailing_metadata() if key == _DETAILS_KEY]
    await context.abort(error.code(), error.details(), trailing_metadata=tuple(details))
    raise AssertionError("abort raises")


def _status(error: CallError) -> Any:
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata)
    )
    details: list[Message] = [info]
    if error.retry_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(
        code=error.code.value[0], message=error.message, details=[_pack(d) for d in details]
    )


def _pack(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
