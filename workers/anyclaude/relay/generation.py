"""One answer from a server: sends the request, adapts it after a refusal, and reads the response.

Invariants:
- A request is not sent again after content was sent to the client.
- Every request ends for the breaker in exactly one way: success, fault or undecided.
- Finished is emitted only if the server completed its response; anything else raises.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import structlog
from pydantic_core import to_json

from anyclaude.messages.errors import ApiError, prompt_too_long
from anyclaude.messages.requests import MessagesRequest, read_json
from anyclaude.messages.websearch import not_searched, only_searches
from anyclaude.relay.client import Response
from anyclaude.relay.dialect import BrokenAnswerError, Dialect, Reader, RefusedInStreamError, Target
from anyclaude.relay.failures import (
    UpstreamFault,
    broken_answer,
    explain_refusal,
)
from anyclaude.relay.refusals import Refusal, find_overflow, shown
from anyclaude.relay.sse import ServerEvent, SseParser, StreamTooLargeError
from anyclaude.relay.upstream import Upstream
from anyclaude.runtime.streams import Emit
from anyclaude.runtime.upstreams import UpstreamKind
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

# One to learn the context window, and a few for fields that a server does not support.
_MAX_ATTEMPTS: Final = 6
# If less remains for the answer, the client had better compact the conversation.
_MIN_ANSWER_TOKENS: Final = 1024
# Changing the request does not help against these.
_FINAL: Final = frozenset({401, 402, 403, 409, 413, 429, 502, 503, 504, 529})
# These accept a prompt of any length: they truncate it, or exceed what their model was made for.
# What a server of kind OTHER does is unknown.
_ACCEPTS_ANY_LENGTH: Final = frozenset(
    {UpstreamKind.MLX_LM, UpstreamKind.OLLAMA, UpstreamKind.OTHER}
)
# How long the end of a complete response is awaited, to keep its connection.
_END_SECONDS: Final = 0.05
# How long token counts are awaited after the last content.
_COUNTS_SECONDS: Final = 2.0


async def generate(upstream: Upstream, raw: bytes, emit: Emit) -> pb.Usage:
    """Generates one answer and sends its events, from Started to Finished.

    Args:
        upstream: the server.
        raw: the Messages request as the client sent it.
        emit: sends events.

    Returns:
        The tokens that were used.

    Raises:
        ApiError: the request failed, before or after content was sent.
    """
    document = read_json(raw)
    request = MessagesRequest.of(document)
    upstream.admit()
    upstream.running += 1
    try:
        usage = await _Generation(upstream, request, document, raw, emit).run()
        upstream.note_success()
        return usage
    except UpstreamFault as fault:
        log.warning("server failed", upstream=upstream.name, status=fault.status)
        upstream.note_fault(fault)
        raise
    finally:
        upstream.running -= 1
        upstream.breaker.undecided()


class _Generation:
    """The attempts to generate one answer."""

    def __init__(
        self,
        upstream: Upstream,
        request: MessagesRequest,
        document: Mapping[str, Any],
        raw: bytes,
        emit: Emit,
    ) -> None:
        self._upstream = upstream
        self._request = request
        self._document = document
        self._raw = raw
        self._emit = emit
        # The last body that was sent.
        self._sent: Mapping[str, Any] = {}
        self._passed_on = False

    async def run(self) -> pb.Usage:
        self._check_window()
        dialect = await self._upstream.dialect()
        if not dialect.knows_server_tools and only_searches(self._request):
            estimate = self._upstream.estimator.estimate(self._request, self._raw)
            await self._emit(not_searched(estimate))
            return pb.Usage()
        target = await self._upstream.target(self._request.model)
        for _ in range(_MAX_ATTEMPTS):
            try:
                return await self._attempt(dialect, target)
            except Refusal as refusal:
                adapted = await self._adapted(refusal, dialect, target)
                if adapted is None:
                    raise self._explained(refusal, target) from None
                dialect, target = adapted
        raise broken_answer(self._upstream.party, "it refuses every form of the request")

    def _check_window(self) -> None:
        """Refuses a prompt that its server would accept and truncate.

        Raises:
            ApiError: it is longer than the context window of the settings.
        """
        settings = self._upstream.settings
        if not settings.context_window_tokens or settings.kind not in _ACCEPTS_ANY_LENGTH:
            return
        tokens = self._upstream.estimator.at_least(self._request, self._raw)
        if tokens > settings.context_window_tokens:
            raise prompt_too_long(tokens, settings.context_window_tokens)

    async def _attempt(self, dialect: Dialect, target: Target) -> pb.Usage:
        self._sent = dialect.body(self._request, self._document, target)
        headers = [(b"content-type", b"application/json"), *self._upstream.headers(dialect)]
        # Bodies of 100 kB and more are common, and this is several times faster than json.
        body = to_json(self._sent)
        estimate = self._upstream.estimator.estimate(self._request, self._raw)
        reader = dialect.reader(self._request, target, estimate, self._note_prompt_tokens)
        async with self._upstream.client.send("POST", dialect.path, headers, body) as response:
            if not response.is_ok:
                raise self._refusal(response.status, await response.read(), response.headers)
            try:
                return await self._read(response, reader)
            except (BrokenAnswerError, StreamTooLargeError) as error:
                raise broken_answer(self._upstream.party, str(error)) from None
            except RefusedInStreamError as error:
                raise self._refused_in_stream(error) from None

    async def _read(self, response: Response, reader: Reader) -> pb.Usage:
        kind = response.headers.get("content-type", "")
        if "json" in kind and not response.is_event_stream:
            answered = _document(await response.read())
            try:
                reader.whole(answered)
            finally:
                await self._pass_on(reader)
        elif "html" in kind:
            raise Refusal(response.status, "an HTML page instead of an answer")
        else:
            await self._read_stream(response, reader)
        try:
            return reader.finish()
        finally:
            await self._pass_on(reader)

    async def _read_stream(self, response: Response, reader: Reader) -> None:
        parser = SseParser()
        try:
            while chunk := await response.next():
                await self._feed(reader, parser.feed(chunk))
                if reader.has_begun and not response.begun:
                    response.begun = True
                    self._upstream.note_answering()
                if reader.is_done:
                    await _read_end(response)
                    return
                if reader.is_complete:
                    response.patience_seconds = _COUNTS_SECONDS
            await self._feed(reader, parser.finish())
        except UpstreamFault:
            # A server that breaks off or pauses after the last content has sent all of it.
            if not reader.is_complete:
                raise

    async def _feed(self, reader: Reader, received: Iterable[ServerEvent]) -> None:
        try:
            for event in received:
                reader.feed(event)
        finally:
            # The client also gets the events before an error.
            await self._pass_on(reader)

    async def _pass_on(self, reader: Reader) -> None:
        if events := reader.take():
            self._passed_on = True
            await self._emit(events)

    def _refusal(self, status: int, body: bytes, headers: Mapping[str, str]) -> Refusal:
        return Refusal.of(status, body, headers, self._upstream.key.read())

    def _refused_in_stream(self, error: RefusedInStreamError) -> Refusal:
        code = error.details.get("code")
        status = code if isinstance(code, int) and 400 <= code <= 599 else 500
        text = shown(str(error), self._upstream.key.read())
        if "unexpected endpoint" in text.lower():
            # LM Studio sends this with status 200.
            status = 404
        elif find_overflow(text, error.details):
            status = 400
        return Refusal(status, text, error.details)

    async def _adapted(
        self, refusal: Refusal, dialect: Dialect, target: Target
    ) -> tuple[Dialect, Target] | None:
        """Another form of the request that the server may accept; None if there is none."""
        if self._passed_on or refusal.status in _FINAL:
            return None
        if overflow := find_overflow(refusal.message, refusal.details):
            if overflow.answer_tokens < _MIN_ANSWER_TOKENS or target.max_tokens is not None:
                return None
            return dialect, replace(target, max_tokens=overflow.answer_tokens)
        learned = self._upstream.quirks.learn(refusal.message, _names(self._sent))
        if learned is not None:
            log.info("server does not support part of a request", upstream=self._upstream.name)
            self._upstream.quirks = learned
            return dialect, replace(target, quirks=learned)
        return await self._rediscovered(dialect, target) if refusal.status == 404 else None

    async def _rediscovered(
        self, dialect: Dialect, target: Target
    ) -> tuple[Dialect, Target] | None:
        """What to send if the server, or its model, was replaced; None if it was not."""
        self._upstream.forget()
        new_dialect = await self._upstream.dialect()
        new_target = await self._upstream.target(self._request.model)
        if (new_dialect.name, new_target.model) == (dialect.name, target.model):
            return None
        return new_dialect, new_target

    def _explained(self, refusal: Refusal, target: Target) -> ApiError:
        error = explain_refusal(
            refusal,
            self._upstream.party,
            model=target.model,
            max_tokens=target.max_tokens or self._request.max_tokens,
        )
        if not isinstance(error, UpstreamFault):
            self._upstream.note_refusal(error)
        return error

    def _note_prompt_tokens(self, tokens: int | None) -> None:
        if tokens is not None:
            self._upstream.estimator.learn(self._request, self._raw, tokens)
        else:
            self._upstream.note_no_counts()


def _names(body: Mapping[str, Any]) -> set[str]:
    """The names of all fields of a body and of its messages."""
    return set(body).union(*(message for message in body["messages"]))


async def _read_end(response: Response) -> None:
    """Reads the end of a complete response, so that its connection can be kept."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            while await response.next():
                pass
    except (TimeoutError, UpstreamFault):
        # Then the connection is closed instead.
        return


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise BrokenAnswerError("it is not JSON") from None
