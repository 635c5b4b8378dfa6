"""A control server whose responses a test sets: real gRPC on a real unix socket, no daemon."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# First: it sets gRPC's environment before gRPC is imported.
from anyclaude.runtime import channels  # isort: skip
import grpc
from google.protobuf import any_pb2, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from anyclaude.cache.v1 import cache_pb2
from anyclaude.control.v1 import control_pb2

_CACHE_SERVICE = cache_pb2.DESCRIPTOR.services_by_name["CacheService"]


@dataclass(frozen=True)
class Failure:
    """An error in place of a response; with a reason it carries the daemon's ErrorInfo."""

    code: grpc.StatusCode
    message: str
    reason: str = ""


class Silence:
    """No response until the client gives up."""


Answer = Message | Failure | Silence | Sequence[Message]


class ScriptedControl:
    """Serves every method of the control socket; `calls` holds the received requests."""

    def __init__(self, socket_path: Path) -> None:
        self.answers: dict[str, Answer] = {}
        self.calls: list[tuple[str, Any]] = []
        self._called = threading.Condition()
        self._closing = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(4), options=channels.SERVER_OPTIONS)
        services = (*control_pb2.DESCRIPTOR.services_by_name.values(), _CACHE_SERVICE)
        for service in services:
            handlers = {method.name: self._handler(method) for method in service.methods}
            self._server.add_generic_rpc_handlers(
                [grpc.method_handlers_generic_handler(service.full_name, handlers)]
            )
        socket_path.parent.mkdir(parents=True, exist_ok=True)
        self._server.add_insecure_port(channels.target(socket_path))
        self._server.start()

    def requests(self, method: str) -> list[Any]:
        """The requests of one method, oldest first."""
        return [request for name, request in self.calls if name == method]

    def wait_for_call(self, method: str) -> None:
        """Returns once the method has been called."""
        with self._called:
            assert self._called.wait_for(lambda: self.requests(method), timeout=30), method

    def close(self) -> None:
        self._closing.set()
        self._server.stop(None).wait()

    def _note(self, method: str, request: Any) -> None:
        with self._called:
            self.calls.append((method, request))
            self._called.notify_all()

    def _handler(self, method: Any) -> grpc.RpcMethodHandler:
        request_class = message_factory.GetMessageClass(method.input_type)
        response_class = message_factory.GetMessageClass(method.output_type)
        make = (
            grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )

        def unary(request: Any, context: Any) -> Any:
            self._note(method.name, request)
            return self._unary(self.answers.get(method.name, response_class()), context)

        def stream(request: Any, context: Any) -> Iterator[Any]:
            self._note(method.name, request)
            yield from self._stream(self.answers.get(method.name, []), context)

        return make(
            stream if method.server_streaming else unary,
            request_deserializer=request_class.FromString,
            response_serializer=response_class.SerializeToString,
        )

    def _unary(self, answer: Answer, context: Any) -> Any:
        if isinstance(answer, Failure):
            _fail(answer, context)
        if isinstance(answer, Silence):
            self._wait_for_end(context)
        return answer

    def _stream(self, answer: Answer, context: Any) -> Iterator[Any]:
        if isinstance(answer, Failure):
            _fail(answer, context)
        if isinstance(answer, Sequence):
            yield from answer
        self._wait_for_end(context)

    def _wait_for_end(self, context: Any) -> None:
        ended = threading.Event()
        if context.add_callback(ended.set):
            while not ended.wait(0.05) and not self._closing.is_set():
                pass


def _fail(failure: Failure, context: Any) -> None:
    if not failure.reason:
        context.abort(failure.code, failure.message)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=failure.reason, domain="anyclaude"))
    code, _ = failure.code.value
    context.abort_with_status(
        rpc_status.to_status(
            status_pb2.Status(code=code, message=failure.message, details=[detail])
        )
    )
