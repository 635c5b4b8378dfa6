"""`count_tokens`: by the server where it can, else a guess that says so."""

import json
from collections.abc import Mapping
from typing import Any, Final

import structlog

from anyclaude.messages.requests import CountTokensRequest, count_tokens_request, read_json
from anyclaude.relay.anthropic import COUNT_PATH, AnthropicDialect, count_body
from anyclaude.relay.failures import Refusal, UpstreamFault, explain_refusal
from anyclaude.relay.openai.dialect import OpenAiDialect
from anyclaude.relay.openai.request import count_messages
from anyclaude.relay.upstream import Upstream
from anyclaude.relay.wire import Answer
from anyclaude.runtime.upstreams import UpstreamKind
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

_NO_ENDPOINT: Final = frozenset({404, 405, 501})
_COUNT_SECONDS: Final = 30.0
# vLLM's own endpoint, which renders the chat template.
_VLLM_PATH: Final = "/tokenize"


async def count_tokens(upstream: Upstream, raw: bytes) -> pb.CountTokensResponse:
    """
    Raises:
        ApiError: the request is unfit, or the real API refuses it.
    """
    document = read_json(raw)
    request = count_tokens_request(document)
    try:
        counted = await _ask(upstream, request, document)
    except UpstreamFault as fault:
        # Not the time to complain: the next message will, with all it takes.
        log.debug("no count", upstream=upstream.name, status=fault.status)
    else:
        if counted is not None:
            return pb.CountTokensResponse(input_tokens=counted)
    return pb.CountTokensResponse(
        input_tokens=upstream.estimator.estimate(request, raw), is_estimate=True
    )


async def _ask(
    upstream: Upstream, request: CountTokensRequest, document: Mapping[str, Any]
) -> int | None:
    """The server's own count; None when it has none."""
    if not upstream.counts:
        return None
    target = await upstream.target(request.model)
    dialect = await upstream.dialect()
    if isinstance(dialect, AnthropicDialect):
        path, body = COUNT_PATH, count_body(request, document, target)
    elif isinstance(dialect, OpenAiDialect) and upstream.settings.kind is UpstreamKind.VLLM:
        path, body = _VLLM_PATH, count_messages(request, target)
    else:
        upstream.note_no_count_endpoint()
        return None
    return await _post(upstream, path, body, target.model)


async def _post(upstream: Upstream, path: str, body: Any, model: str) -> int | None:
    headers = [(b"content-type", b"application/json"), *upstream.headers()]
    async with upstream.wire.ask(
        "POST", path, headers, json.dumps(body).encode(), patience_seconds=_COUNT_SECONDS
    ) as asked:
        answer = await asked.answer()
        content = await answer.read()
    if not answer.is_ok:
        _refused(upstream, answer, content, model)
        return None
    count = _count(content)
    if count is None:
        # LM Studio answers 200 to a path that it does not know.
        upstream.note_no_count_endpoint()
    return count


def _count(content: bytes) -> int | None:
    try:
        document = json.loads(content)
    except ValueError:
        return None
    found = document if isinstance(document, dict) else {}
    count = found.get("input_tokens", found.get("count"))
    return count if isinstance(count, int) and count > 0 else None


def _refused(upstream: Upstream, answer: Answer, content: bytes, model: str) -> None:
    """
    Raises:
        ApiError: by the real API, whose refusals the client understands.
    """
    if upstream.settings.kind is UpstreamKind.CLAUDE:
        refusal = Refusal.of(answer.status, content, answer.headers, upstream.key.read())
        raise explain_refusal(refusal, upstream.party, model=model, max_tokens=0)
    if answer.status in _NO_ENDPOINT:
        upstream.note_no_count_endpoint()
