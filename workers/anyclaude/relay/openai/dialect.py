"""Chat completions: `POST /v1/chat/completions`."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from anyclaude.messages.requests import MessagesRequest
from anyclaude.relay.openai.answer import ChatReader
from anyclaude.relay.openai.request import build
from anyclaude.relay.reader import Reader
from anyclaude.relay.target import Target
from anyclaude.worker.v1 import worker_pb2 as pb


class OpenAiDialect:
    name: Final = pb.DIALECT_OPENAI
    path: Final = "/v1/chat/completions"
    knows_server_tools: Final = False

    def headers(self, key: str, *, is_api: bool) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", f"Bearer {key}".encode())] if key else []

    def body(
        self, request: MessagesRequest, document: Mapping[str, Any], target: Target
    ) -> dict[str, Any]:
        return build(request, target)

    def reader(
        self,
        request: MessagesRequest,
        target: Target,
        estimated_tokens: int,
        on_usage: Callable[[int | None], None],
    ) -> Reader:
        return ChatReader(
            request,
            estimated_tokens=estimated_tokens,
            window_limited=target.max_tokens is not None,
            on_usage=on_usage,
        )
