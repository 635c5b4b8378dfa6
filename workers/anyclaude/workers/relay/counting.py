"""`count_tokens`: by the server where it can, else a guess that says so."""

import json
from typing import Any, Final

import structlog

from anyclaude.messages.errors import ApiError
from anyclaude.messages.requests import CountTokensRequest, parse_count_tokens_request
from anyclaude.runtime.upstreams import UpstreamKind
from anyclaude.worker.v1 import worker_pb2 as pb
from anyclaude.workers.relay.anthropic import AnthropicDialect, count_body
from anyclaude.workers.relay.failures import Refusal, UpstreamFault, explain_refusal
from anyclaude.workers.relay.openai.dialect import OpenAiDialect
from anyclaude.workers.relay.openai.request import count_messages
from anyclaude.workers.relay.upstream import Upstream

log = structlog.get_logger(__name__)

_COUNT_SECONDS: Final = 30.0
_ANTHROPIC_PATH: Final = "/v1/messages/count_tokens"
# vLLM's own endpoint, which renders the chat template.
_VLLM_PATH: Final = "/tokenize"


async def count_tokens(upstream: Upstream, raw: bytes) -> pb.CountTokensResponse:
    """
    Raises:
        ApiError: the request is unfit, or the real API refuses it.
    """
    request = parse_count_tokens_request(raw)
    try:
        counted = await _ask(upstream, request, raw)
    except UpstreamFault as fault:
        # Not the time to complain: the next message will, with all it takes.
        log.debug("no count", upstream=upstream.name, status=fault.status)
    else:
        if counted is not None:
            return pb.CountTokensResponse(input_tokens=counted)
        upstream.note_no_count_endpoint()
    return pb.CountTokensResponse(
        input_tokens=upstream.estimator.estimate(request, raw), is_estimate=True
    )


async def _ask(upstream: Upstream, request: CountTokensRequest, raw: bytes) -> int | None:
    """The server's own count; None when it has none."""
    if not upstream.counts:
        return None
    target = await upstream.target(request.model)
    dialect = await upstream.dialect()
    if isinstance(dialect, AnthropicDialect):
        path, body = _ANTHROPIC_PATH, count_body(request, raw, target)
    elif isinstance(dialect, OpenAiDialect) and upstream.settings.kind is UpstreamKind.VLLM:
        path, body = _VLLM_PATH, count_messages(request, target)
    else:
        return None
    document = await _post(upstream, path, body, target.model)
    count = document.get("input_tokens", document.get("count"))
    # LM Studio answers 200 to a path it does not know.
    return count if isinstance(count, int) and count > 0 else None


async def _post(upstream: Upstream, path: str, body: Any, model: str) -> dict[str, Any]:
    headers = [(b"content-type", b"application/json"), *upstream.headers()]
    async with upstream.wire.send(
        "POST", path, headers, json.dumps(body).encode(), head_timeout_seconds=_COUNT_SECONDS
    ) as answer:
        content = await answer.read()
    if not answer.is_ok:
        return _refused(upstream, answer.status, content, dict(answer.headers), model)
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _refused(
    upstream: Upstream, status: int, content: bytes, headers: dict[str, str], model: str
) -> dict[str, Any]:
    if upstream.settings.kind is not UpstreamKind.CLAUDE:
        return {}
    refusal = Refusal.of(status, content, headers, upstream.key.read())
    error: ApiError = explain_refusal(refusal, upstream.party, model=model, max_tokens=0)
    raise error
