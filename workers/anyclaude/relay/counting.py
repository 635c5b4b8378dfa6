"""`count_tokens`: by the server if it can count, otherwise an estimate that is marked as one."""

import json
from collections.abc import Mapping
from typing import Any, Final

import structlog
from pydantic_core import to_json

from anyclaude.messages.requests import CountTokensRequest, read_json
from anyclaude.messages.schemas import as_object
from anyclaude.relay.client import Response
from anyclaude.relay.failures import UpstreamFault, explain_refusal
from anyclaude.relay.refusals import Refusal
from anyclaude.relay.upstream import Upstream
from anyclaude.runtime.upstreams import UpstreamKind
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

_NO_ENDPOINT: Final = frozenset({404, 405, 501})
_COUNT_SECONDS: Final = 30.0


async def count_tokens(upstream: Upstream, raw: bytes) -> pb.CountTokensResponse:
    """Raises ApiError if the request is invalid, or the real API refuses it."""
    document = read_json(raw)
    edited = upstream.edited(CountTokensRequest.of(document))
    request, cleared = edited.request, edited.cleared_tokens
    if edited.applied:
        raw = to_json(request)
    try:
        counted = await _count(upstream, request, document)
    except UpstreamFault as fault:
        # An estimate will do; if the server stays down, the next message reports it.
        log.debug("no count", upstream=upstream.name, status=fault.status)
    else:
        if counted is not None:
            return pb.CountTokensResponse(input_tokens=counted, cleared_input_tokens=cleared)
    return pb.CountTokensResponse(
        input_tokens=upstream.estimator.estimate(request, raw),
        is_estimate=True,
        cleared_input_tokens=cleared,
    )


async def _count(
    upstream: Upstream, request: CountTokensRequest, document: Mapping[str, Any]
) -> int | None:
    """The server's own count; None if it cannot count."""
    if not upstream.counts:
        return None
    target = await upstream.target(request.model)
    dialect = await upstream.dialect()
    counting = dialect.count_request(request, document, target)
    if counting is None:
        upstream.note_no_count_endpoint()
        return None
    path, body = counting
    return await _post(upstream, path, body, target.model)


async def _post(upstream: Upstream, path: str, body: Any, model: str) -> int | None:
    headers = [(b"content-type", b"application/json"), *upstream.headers()]
    async with upstream.client.send(
        "POST", path, headers, json.dumps(body).encode(), patience_seconds=_COUNT_SECONDS
    ) as response:
        content = await response.read()
    if not response.is_ok:
        _refused(upstream, response, content, model)
        return None
    count = _parsed(content)
    if count is None:
        # LM Studio responds with 200 to unknown paths.
        upstream.note_no_count_endpoint()
    return count


def _parsed(content: bytes) -> int | None:
    try:
        document = json.loads(content)
    except ValueError:
        return None
    found = as_object(document)
    count = found.get("input_tokens", found.get("count"))
    return count if isinstance(count, int) and count > 0 else None


def _refused(upstream: Upstream, response: Response, content: bytes, model: str) -> None:
    """Raises ApiError for a refusal of the real API, which the client understands."""
    if upstream.settings.kind is UpstreamKind.CLAUDE:
        refusal = Refusal.of(response.status, content, response.headers, upstream.key.read())
        raise explain_refusal(refusal, upstream.party, model=model, max_tokens=0)
    if response.status in _NO_ENDPOINT:
        upstream.note_no_count_endpoint()
