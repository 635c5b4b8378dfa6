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
    overflow_of,
)
from anyclaude.relay.quirks import Quirks
from anyclaude.relay.refusals import Refusal
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
# Changing the request does not help against these, except where it is too long.
_FINAL: Final = frozenset({401, 402, 403, 409, 413, 429, 502, 503, 504, 529})
# The kinds of bodies, by the first byte that is not white space.
_JSON_STARTS: Final = (b"{", b"[")
_BLANKS: Final = b" \t\r\n\xef\xbb\xbf"
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
    """Generates one answer and emits its events, from Started to Finished; returns its usage.

    Raises:
        ApiError: the request failed, before or after content was sent.
    """
    document = read_json(raw)
    request = MessagesRequest.of(document)
    with upstream.exchange():
        return await _Generation(upstream, request, document, raw, emit).run()


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
        edited = upstream.edited(request)
        self._applied_edits = edited.applied
        self._request = edited.request
        self._document = document
        self._raw = to_json(edited.request) if edited.applied else raw
        self._emit = emit
        # The last body that was sent.
        self._sent: Mapping[str, Any] = {}
        self._passed_on = False
        # The last refusal, and fields without which the server refused the request all the same.
        self._last_refusal = ""
        self._unhelpful: frozenset[str] = frozenset()

    async def run(self) -> pb.Usage:
        self._check_window()
        dialect = await self._upstream.dialect()
        if not dialect.knows_server_tools and only_searches(self._request):
            estimate = self._upstream.estimator.estimate(self._request, self._raw)
            await self._emit(not_searched(estimate))
            return pb.Usage()
        target = await self._upstream.target(self._request.model)
        for attempts_left in reversed(range(_MAX_ATTEMPTS)):
            try:
                usage = await self._attempt(dialect, target)
            except Refusal as refusal:
                adapted = await self._adapted(refusal, dialect, target)
                if adapted is None or not attempts_left:
                    raise self._explained(refusal, target) from None
                dialect, target = adapted
            else:
                self._upstream.learn(target.quirks.lasting())
                return usage
        raise AssertionError("the last attempt ends in a response or an error")

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
        # Some servers label a stream as JSON or HTML, and the reverse, so the first bytes decide.
        begin = await _begin(response)
        start = begin.strip(_BLANKS)
        if start.startswith(b"<"):
            raise Refusal(response.status, "an HTML page instead of an answer")
        if start.startswith(_JSON_STARTS):
            try:
                _read_documents(begin + await response.read(), reader)
            finally:
                await self._pass_on(reader)
        else:
            await self._read_stream(begin, response, reader)
        try:
            return reader.finish()
        finally:
            await self._pass_on(reader)

    async def _read_stream(self, chunk: bytes, response: Response, reader: Reader) -> None:
        parser = SseParser()
        try:
            while chunk:
                await self._feed(reader, parser.feed(chunk))
                if reader.has_begun and not response.begun:
                    response.begun = True
                    self._upstream.note_answering()
                if reader.is_done:
                    await _read_end(response)
                    return
                response.patience_seconds = _COUNTS_SECONDS if reader.is_complete else None
                chunk = await response.next()
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
            if events[-1].HasField("finished"):
                events[-1].finished.applied_edits.extend(self._applied_edits)
            await self._emit(events)

    def _refusal(self, status: int, body: bytes, headers: Mapping[str, str]) -> Refusal:
        return Refusal.of(status, body, headers, self._upstream.key.read())

    def _refused_in_stream(self, error: RefusedInStreamError) -> Refusal:
        refusal = Refusal.in_stream(error.details, self._upstream.key.read())
        if refusal.status >= 500 and overflow_of(refusal, self._upstream.party, 0):
            refusal.status = 400
        return refusal

    async def _adapted(
        self, refusal: Refusal, dialect: Dialect, target: Target
    ) -> tuple[Dialect, Target] | None:
        """Another form of the request that the server may accept; None if there is none."""
        if self._passed_on:
            return None
        if overflow := overflow_of(refusal, self._upstream.party, self._requested_tokens):
            if overflow.answer_tokens < _MIN_ANSWER_TOKENS or target.max_tokens is not None:
                return None
            return dialect, replace(target, max_tokens=overflow.answer_tokens)
        is_api = self._upstream.settings.kind is UpstreamKind.CLAUDE
        if is_api or refusal.status in _FINAL:
            # The real API gets what the client sent.
            return None
        quirks = self._without_unhelpful(refusal, target.quirks)
        learned = quirks.learn(refusal.message, self._sent, refusal.details, self._unhelpful)
        if learned is not None:
            log.info("server does not support part of a request", upstream=self._upstream.name)
            return dialect, replace(target, quirks=learned)
        return await self._rediscovered(dialect, target) if refusal.status == 404 else None

    def _without_unhelpful(self, refusal: Refusal, quirks: Quirks) -> Quirks:
        """The quirks without a field that the server did not mean: it refuses in the same words."""
        before = self._upstream.quirks
        is_same = refusal.message == self._last_refusal
        self._last_refusal = refusal.message
        if not is_same:
            return quirks
        self._unhelpful |= quirks.left_out - before.dropped
        return replace(quirks, dropped=before.dropped, dropped_once=frozenset())

    @property
    def _requested_tokens(self) -> int:
        tokens = self._sent.get("max_tokens", self._sent.get("max_completion_tokens"))
        return tokens if isinstance(tokens, int) else self._request.max_tokens

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
            max_tokens=self._requested_tokens,
        )
        if not isinstance(error, UpstreamFault):
            self._upstream.note_refusal(error)
        return error

    def _note_prompt_tokens(self, tokens: int | None) -> None:
        if tokens is not None:
            self._upstream.estimator.learn(self._request, self._raw, tokens)
        else:
            self._upstream.note_no_counts()


async def _begin(response: Response) -> bytes:
    """The body up to its first character."""
    begin = b""
    while chunk := await response.next():
        begin += chunk
        if begin.strip(_BLANKS):
            break
    return begin


async def _read_end(response: Response) -> None:
    """Reads the end of a complete response, so that its connection can be kept."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            while await response.next():
                pass
    except (TimeoutError, UpstreamFault):
        # Then the connection is closed instead.
        return


def _read_documents(body: bytes, reader: Reader) -> None:
    """Reads a whole response, or the pieces of one that is no event stream."""
    documents = _documents(body)
    if len(documents) == 1:
        reader.whole(documents[0])
        return
    for document in documents:
        reader.feed(ServerEvent("", json.dumps(document)))


def _documents(body: bytes) -> list[Any]:
    """The JSON value that a body is, or those of its list or of its lines."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        try:
            return [json.loads(line) for line in body.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise BrokenAnswerError("it is not JSON") from None
    return value if isinstance(value, list) and value else [value]
