"""How a response is written: in the shape of the Messages API, or of OpenAI's chat completions.

Requests of both kinds are the same on their way through the front end and the workers, so they
share queues, caches and records.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from anyclaude.messages.chat_answer import ChunkEncoder, completion, error_body
from anyclaude.messages.errors import ApiError
from anyclaude.messages.events import Event
from anyclaude.proxy.response import encode

CHAT_PATH: Final = "/v1/chat/completions"

Encode = Callable[[Event], bytes]


class Shape(Protocol):
    def whole(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body of a response that is not streamed."""
        ...

    def encoder(self) -> Encode:
        """What writes the events of one stream."""
        ...

    def error(self, error: ApiError, request_id: str) -> Mapping[str, Any]:
        """The body of an error."""
        ...


class MessagesShape:
    def whole(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        return message

    def encoder(self) -> Encode:
        return encode

    def error(self, error: ApiError, request_id: str) -> Mapping[str, Any]:
        return error.envelope(request_id)


class ChatShape:
    def __init__(self, *, tells_usage: bool = False) -> None:
        """
        Args:
            tells_usage: a stream ends with the token counts.
        """
        self._tells_usage = tells_usage

    def whole(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        return completion(message)

    def encoder(self) -> Encode:
        return ChunkEncoder(tells_usage=self._tells_usage)

    def error(self, error: ApiError, request_id: str) -> Mapping[str, Any]:
        return error_body(error)


def shape_of(path: str) -> Shape:
    """The shape in which clients of a path read responses, errors of any cause included."""
    return ChatShape() if path == CHAT_PATH else MessagesShape()
