"""Errors of the control API: one exception, turned into a rich gRPC status in one place.

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
class ControlError(Exception):
    """A call that ends in an error the caller can act on."""

    code: grpc.StatusCode
    # UPPER_SNAKE.
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    # When trying again may help.
    retry_seconds: float | None = None


def answers(
    handler: Callable[[_Service, _Request], Awaitable[_Response]],
) -> Callable[[_Service, _Request, Any], Awaitable[_Response]]:
    """Makes a gRPC method of a handler that raises `ControlError`.

    The handler never sees the context: touching it after a cancellation can crash the process.
    """

    @functools.wraps(handler)
    async def method(service: _Service, request: _Request, context: Any) -> _Response:
        try:
            return await handler(service, request)
        except ControlError as error:
            await _abort(context, error)

    return method


async def _abort(context: Any, error: ControlError) -> NoReturn:
    details = (_DETAILS_KEY, _status(error).SerializeToString())
    await context.abort(error.code, error.message, trailing_metadata=(details,))
    raise AssertionError("abort raises")


def _status(error: ControlError) -> Any:
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
