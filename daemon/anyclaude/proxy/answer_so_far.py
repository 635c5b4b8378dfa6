"""What was received of one answer, so that another worker can continue it.

A worker sends the tokens of an answer with its events. If it dies, the next worker is given these
tokens, sends their events again from the first one, and generates the rest. The events that were
received before are left out here, so the client sees one answer without a seam.

A position in an answer is its number of characters so far: those of text, thinking and the input of
calls, and one each for the beginning and the end of a block and for a signature. So it makes no
difference how the two workers divide text into events.
"""

import hashlib
from array import array
from collections.abc import Iterable
from typing import Final

import structlog

from anyclaude.messages.errors import ApiError
from anyclaude.worker.v1 import worker_pb2 as worker

log = structlog.get_logger("anyclaude.proxy.answer_so_far")

_PROGRESS_TOKENS: Final = 32


class AnswerSoFar:
    """The tokens of one answer, and how much of its content was received."""

    def __init__(self, max_tokens: int) -> None:
        """
        Args:
            max_tokens: a longer answer is not kept, and cannot be continued.
        """
        self.tokens = array("I")
        # How many of them the present worker was given.
        self.replayed_tokens = 0
        self._max_tokens = max_tokens
        # As the client knows it.
        self._usage: worker.Usage | None = None
        # The position up to which content was received from any worker, and from the present one.
        self._received = 0
        self._position = 0
        # Digests of the content up to these positions.
        self._digest = hashlib.blake2b()
        self._repeated = hashlib.blake2b()

    @property
    def can_continue(self) -> bool:
        """Whether another worker can continue behind what was received."""
        if len(self.tokens) > self._max_tokens:
            return False
        return bool(self.tokens) or not self._received

    @property
    def has_progressed(self) -> bool:
        """Whether the present worker clearly got further than the one before.

        Then its death says nothing about the request.
        """
        if not self.tokens:
            return self._received > 0
        return len(self.tokens) - self.replayed_tokens >= _PROGRESS_TOKENS

    def continue_at_next_worker(self) -> None:
        """What is received from now on comes from another worker, which was given the tokens."""
        self.replayed_tokens = len(self.tokens)
        self._position = 0
        self._repeated = hashlib.blake2b()

    def receive(
        self, responses: Iterable[worker.GenerateResponse]
    ) -> list[worker.GenerateResponse]:
        """The responses with an event that is new to the client.

        Raises:
            ApiError: the worker repeated other content than was received before.
        """
        return [response for response in responses if self._receive(response)]

    def _receive(self, response: worker.GenerateResponse) -> bool:
        """Whether the response is new, without what is left out of it."""
        if len(self.tokens) <= self._max_tokens:
            self.tokens.extend(response.token_ids)
        match response.WhichOneof("event"):
            case None:
                return False
            case "started":
                return self._start(response.started)
            case "finished":
                if self._position < self._received:
                    self._check_repeated()
                self._count_prompt_once(response.finished.usage)
                return True
            case "block_start" | "block_delta" | "block_stop":
                return self._receive_content(response)
        return True

    def _start(self, started: worker.Started) -> bool:
        is_first = self._usage is None
        if is_first:
            self._usage = started.usage
        return is_first

    def _count_prompt_once(self, usage: worker.Usage) -> None:
        """Keeps the prompt's counts as the client knows them from the beginning of the answer."""
        if self.replayed_tokens and self._usage is not None:
            usage.input_tokens = self._usage.input_tokens
            usage.cache_read_tokens = self._usage.cache_read_tokens
            usage.cache_creation_tokens = self._usage.cache_creation_tokens

    def _receive_content(self, response: worker.GenerateResponse) -> bool:
        content, length = _content(response)
        known = min(self._received - self._position, length)
        self._position += length
        if known:
            # Only a text has a length over 1 and can be known in part.
            self._repeated.update((content if known == length else content[:known]).encode())
            if self._position >= self._received:
                self._check_repeated()
        if known == length:
            return False
        if known:
            content = content[known:]
            _set_text(response.block_delta, content)
        self._digest.update(content.encode())
        self._received = self._position
        return True

    def _check_repeated(self) -> None:
        if self._repeated.digest() != self._digest.digest():
            log.error("worker repeated another answer", characters=self._received)
            raise ApiError(
                500,
                "The model worker died, and the next one could not continue its answer. This "
                "happens if the model was changed in between. Send the request again.",
            )


def _content(response: worker.GenerateResponse) -> tuple[str, int]:
    """The content of a block event, and its length as positions count it."""
    match response.WhichOneof("event"):
        case "block_start":
            return _opening(response.block_start), 1
        case "block_delta" if (kind := response.block_delta.WhichOneof("delta")) != "signature":
            text: str = getattr(response.block_delta, str(kind))
            return text, len(text)
    # Signatures are random, so they are counted and not compared.
    return "", 1


def _opening(start: worker.BlockStart) -> str:
    return f"{start.WhichOneof('block')} {start.tool_use.id} {start.tool_use.name}"


def _set_text(delta: worker.BlockDelta, text: str) -> None:
    setattr(delta, str(delta.WhichOneof("delta")), text)
