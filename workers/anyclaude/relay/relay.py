"""One generation through a server: sent, mended where a refusal teaches how, read to its end.

Invariants:
- Nothing is sent again once content was passed on.
- Every request ends for the breaker in exactly one way: success, fault or undecided.
- An answer ends with Finished only when the server ended it; everything else raises.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import structlog
from pydantic_core import to_json

from anyclaude.messages.errors import ApiError, prompt_too_long
from anyclaude.messages.requests import MessagesRequest, messages_request, read_json
from anyclaude.messages.websearch import not_searched, only_searches
from anyclaude.relay.dialect import Dialect
from anyclaude.relay.failures import (
    Refusal,
    UpstreamFault,
    broken_answer,
    explain_refusal,
    shown,
)
from anyclaude.relay.overflow import find_overflow
from anyclaude.relay.reader import BrokenAnswerError, Reader, RefusedInStreamError
from anyclaude.relay.sse import ServerEvent, SseParser, StreamTooLargeError
from anyclaude.relay.target import Target
from anyclaude.relay.upstream import Upstream
from anyclaude.relay.wire import Answer
from anyclaude.runtime.streams import Emit
from anyclaude.runtime.upstreams import UpstreamKind
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

# One to learn the window, and a few things that a server may not take.
_MAX_ATTEMPTS: Final = 6
# An answer shorter than this is not worth having: the client shall shorten the conversation.
_MIN_ROOM_TOKENS: Final = 1024
# Refusals that another form of the same request does not change.
_FINAL: Final = frozenset({401, 402, 403, 409, 413, 429, 502, 503, 504, 529})
# These take a prompt of any length and cut it, or go on past what their model was made for; of
# others, nobody knows.
_TAKING_ANY_LENGTH: Final = frozenset(
    {UpstreamKind.MLX_LM, UpstreamKind.OLLAMA, UpstreamKind.OTHER}
)
# A complete answer's connection is worth keeping if its end comes at once.
_END_SECONDS: Final = 0.05
# What still follows the last word, token counts mostly, comes soon or not at all.
_COUNTS_SECONDS: Final = 2.0


async def generate(upstream: Upstream, raw: bytes, emit: Emit) -> pb.Usage:
    """One answer: its events, Started first and Finished last.

    Args:
        upstream: who answers.
        raw: the Messages request as the client sent it.
        emit: sends events to the front end.

    Returns:
        The tokens it took.

    Raises:
        ApiError: the request failed, before or within its answer.
    """
    document = read_json(raw)
    request = messages_request(document)
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
    """The attempts at one answer."""

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
        # Fields of the last body sent.
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
                mended = await self._mended(refusal, dialect, target)
                if mended is None:
                    raise self._explained(refusal, target) from None
                dialect, target = mended
        raise broken_answer(self._upstream.party, "it refuses every form of the request")

    def _check_window(self) -> None:
        """Says of a prompt what its server would not.

        Raises:
            ApiError: it is longer than the settings' window.
        """
        settings = self._upstream.settings
        if not settings.context_window_tokens or settings.kind not in _TAKING_ANY_LENGTH:
            return
        tokens = self._upstream.estimator.at_least(self._request, self._raw)
        if tokens > settings.context_window_tokens:
            raise prompt_too_long(tokens, settings.context_window_tokens)

    async def _attempt(self, dialect: Dialect, target: Target) -> pb.Usage:
        self._sent = dialect.body(self._request, self._document, target)
        headers = [(b"content-type", b"application/json"), *self._upstream.headers(dialect)]
        # A tenth of a megabyte and more: several times faster than json's.
        body = to_json(self._sent)
        async with self._upstream.wire.ask("POST", dialect.path, headers, body) as asked:
            # While the server works.
            estimate = self._upstream.estimator.estimate(self._request, self._raw)
            reader = dialect.reader(self._request, target, estimate, self._note_prompt_tokens)
            answer = await asked.answer()
            if not answer.is_ok:
                raise self._refusal(answer.status, await answer.read(), answer.headers)
            try:
                return await self._read(answer, reader)
            except (BrokenAnswerError, StreamTooLargeError) as error:
                raise broken_answer(self._upstream.party, str(error)) from None
            except RefusedInStreamError as error:
                raise self._refused_in_stream(error) from None

    async def _read(self, answer: Answer, reader: Reader) -> pb.Usage:
        kind = answer.headers.get("content-type", "")
        if "json" in kind and not answer.is_event_stream:
            answered = _document(await answer.read())
            try:
                reader.whole(answered)
            finally:
                await self._pass_on(reader)
        elif "html" in kind:
            raise Refusal(answer.status, "an HTML page instead of an answer")
        else:
            await self._read_stream(answer, reader)
        try:
            return reader.finish()
        finally:
            await self._pass_on(reader)

    async def _read_stream(self, answer: Answer, reader: Reader) -> None:
        parser = SseParser()
        try:
            while chunk := await answer.next():
                await self._take(reader, parser.feed(chunk))
                if reader.has_begun and not answer.begun:
                    answer.begun = True
                    self._upstream.note_answering()
                if reader.is_done:
                    await _read_end(answer)
                    return
                if reader.is_complete:
                    answer.patience_seconds = _COUNTS_SECONDS
            await self._take(reader, parser.finish())
        except UpstreamFault:
            # A server that breaks off, or waits, after the last word has said everything.
            if not reader.is_complete:
                raise

    async def _take(self, reader: Reader, told: Iterable[ServerEvent]) -> None:
        try:
            for event in told:
                reader.feed(event)
        finally:
            # What was read before an error has been read.
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
            # LM Studio says so with 200.
            status = 404
        elif find_overflow(text, error.details):
            status = 400
        return Refusal(status, text, error.details)

    async def _mended(
        self, refusal: Refusal, dialect: Dialect, target: Target
    ) -> tuple[Dialect, Target] | None:
        """Another form of the request that may be taken; None when there is none."""
        if self._passed_on or refusal.status in _FINAL:
            return None
        if overflow := find_overflow(refusal.message, refusal.details):
            if overflow.room_tokens < _MIN_ROOM_TOKENS or target.max_tokens is not None:
                return None
            return dialect, replace(target, max_tokens=overflow.room_tokens)
        learned = self._upstream.quirks.learn(refusal.message, _names(self._sent))
        if learned is not None:
            log.info("server does not take part of a request", upstream=self._upstream.name)
            self._upstream.quirks = learned
            return dialect, replace(target, quirks=learned)
        return await self._asked_anew(dialect, target) if refusal.status == 404 else None

    async def _asked_anew(self, dialect: Dialect, target: Target) -> tuple[Dialect, Target] | None:
        """Whether the server, or its model, was replaced since it was asked."""
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
    """All fields of a body and of its messages."""
    return set(body).union(*(message for message in body["messages"]))


async def _read_end(answer: Answer) -> None:
    """Lets the connection be kept when nothing but its end is left."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            while await answer.next():
                pass
    except (TimeoutError, UpstreamFault):
        # The answer is complete; only the connection is not reused.
        return


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise BrokenAnswerError("it is not JSON") from None
