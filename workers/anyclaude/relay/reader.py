"""What reads one server's answer, whichever its dialect."""

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic_core import from_json

from anyclaude.relay.sse import ServerEvent
from anyclaude.worker.v1.worker_pb2 import GenerateResponse, Usage


class BrokenAnswerError(Exception):
    """The answer cannot be understood, or is incomplete; the message says how."""


class RefusedInStreamError(Exception):
    """The server said an error where an answer was due."""

    def __init__(self, details: Mapping[str, Any]) -> None:
        super().__init__(str(details.get("message", "")))
        self.details = details


class Reader(Protocol):
    """Server events in, worker events out.

    All but `take` raise `BrokenAnswerError` and `RefusedInStreamError`.
    """

    @property
    def has_begun(self) -> bool:
        """Content was seen: the prompt is computed, and a pause is a silence from now on."""
        ...

    @property
    def is_done(self) -> bool:
        """The answer's end was seen; what follows on the connection does not matter."""
        ...

    @property
    def is_complete(self) -> bool:
        """The last word was seen; counts may follow."""
        ...

    def feed(self, event: ServerEvent) -> None: ...

    def whole(self, document: Any) -> None:
        """An answer that came in one piece."""
        ...

    def finish(self) -> Usage:
        """At the answer's end: what is held back, and Finished, whose usage it gives."""
        ...

    def take(self) -> list[GenerateResponse]:
        """The worker events so far, each once; also those ahead of what raised."""
        ...


def parse_object(data: str) -> Mapping[str, Any]:
    """The JSON object that a piece of an answer is.

    Raises:
        BrokenAnswerError: it is none, or holds half a character.
    """
    try:
        value = from_json(data)
    except ValueError:
        raise BrokenAnswerError("a piece of it is not JSON") from None
    if not isinstance(value, dict):
        raise BrokenAnswerError("a piece of it is not a JSON object")
    return value
