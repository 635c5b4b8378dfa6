"""Web searches: requests that ask for one, and the responses to them.

Claude Code's WebSearch sends each query as a request of its own, whose one tool is the API's server
tool. A model would invent results. With a search backend the response consists of what it found;
without one it says at once that nothing was searched. Source: "Web search tool" in Anthropic's
documentation.
"""

import base64
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from anyclaude.messages.blocks import BlockWriter
from anyclaude.messages.events import Event, new_message_id
from anyclaude.messages.requests import MessagesRequest
from anyclaude.worker.v1 import worker_pb2 as pb

NOT_SEARCHED: Final = (
    "Web search is not available here: nothing was searched, and there are no results. The model "
    "that answers has no search tool. Fetch a known address, use a search tool of an MCP server, "
    "or go on without."
)

# How Claude Code words a search; other clients ask in their own words, which are the query then.
_ASKED: Final = re.compile(r"\s*Perform a web search for the query:\s*(.+)", re.DOTALL)
# The longest query that Brave accepts.
_MAX_QUERY_CHARACTERS: Final = 400
_CITED_CHARACTERS: Final = 150


@dataclass(frozen=True)
class Page:
    """A page that a search found."""

    title: str
    url: str
    # What the backend quotes of the page.
    excerpt: str = ""
    # When it was published, in the backend's words; empty if unknown.
    age: str = ""


@dataclass(frozen=True)
class Search:
    """What a request wants to find."""

    query: str
    # Only pages of these domains and their subdomains; empty: of all.
    allowed_domains: tuple[str, ...] = ()
    blocked_domains: tuple[str, ...] = ()

    @classmethod
    def of(cls, request: MessagesRequest) -> "Search":
        options = request.tools[0].model_extra or {}
        return cls(
            _query(request),
            tuple(_domains(options.get("allowed_domains"))),
            tuple(_domains(options.get("blocked_domains"))),
        )

    def admits(self, page: Page) -> bool:
        host = (urlsplit(page.url).hostname or "").lower()
        if any(_is_within(host, domain) for domain in self.blocked_domains):
            return False
        allowed = self.allowed_domains
        return not allowed or any(_is_within(host, domain) for domain in allowed)


def only_searches(request: MessagesRequest) -> bool:
    """Whether a web search is all that the request offers to do."""
    kinds = [tool.type or "" for tool in request.tools]
    return bool(kinds and request.max_tokens) and all(k.startswith("web_search_") for k in kinds)


def not_searched(prompt_tokens: int) -> list[pb.GenerateResponse]:
    """The worker's events where there is no search backend; no model runs."""
    usage = pb.Usage(input_tokens=prompt_tokens)
    writer = BlockWriter()
    writer.add(pb.GenerateResponse(started=pb.Started(usage=usage)))
    writer.text(NOT_SEARCHED)
    writer.close()
    finished = pb.Finished(stop_reason=pb.STOP_REASON_END_TURN, usage=usage)
    writer.add(pb.GenerateResponse(finished=finished))
    return writer.drain()


def found_message(model: str, query: str, pages: Sequence[Page]) -> dict[str, Any]:
    """The message that says what a search found: each excerpt is a text that cites its page."""
    results = [_result(page) for page in pages]
    texts = [_cited(page) for page in pages if page.excerpt]
    if not texts:
        said = "The pages are listed above." if pages else f"The search found nothing: {query}"
        texts = [{"type": "text", "text": said}]
    return _message(model, query, results, texts)


def failed_message(model: str, query: str, why: str) -> dict[str, Any]:
    """The message that says why a search failed."""
    error = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    return _message(model, query, error, [{"type": "text", "text": f"The search failed: {why}"}])


def stream_events(message: Mapping[str, Any]) -> Iterator[Event]:
    """The events of a stream that ends in a message of this module."""
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
    for index, block in enumerate(message["content"]):
        first, deltas = _parts(block)
        yield {"type": "content_block_start", "index": index, "content_block": first}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": message["usage"]}
    yield {"type": "message_stop"}


def _query(request: MessagesRequest) -> str:
    asked = [message for message in request.messages if message.role == "user"][-1:]
    blocks = asked[0].blocks() if asked else []
    words = " ".join(str(block.get("text", "")) for block in blocks if block["type"] == "text")
    found = _ASKED.match(words)
    return " ".join((found.group(1) if found else words).split())[:_MAX_QUERY_CHARACTERS]


def _domains(listed: Any) -> Iterator[str]:
    for domain in listed if isinstance(listed, list) else ():
        if isinstance(domain, str) and domain:
            yield domain.lower().partition("/")[0]


def _is_within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _message(
    model: str, query: str, results: Any, texts: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    call_id = "srvtoolu_" + secrets.token_hex(12)
    call = {
        "type": "server_tool_use",
        "id": call_id,
        "name": "web_search",
        "input": {"query": query},
    }
    result = {"type": "web_search_tool_result", "tool_use_id": call_id, "content": results}
    return {
        "id": new_message_id(),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [call, result, *texts],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        # No model ran.
        "usage": {
            "input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
            "server_tool_use": {"web_search_requests": 1},
        },
    }


def _result(page: Page) -> dict[str, Any]:
    return {
        "type": "web_search_result",
        "title": page.title,
        "url": page.url,
        # Opaque for clients, which send it back.
        "encrypted_content": base64.b64encode(page.excerpt.encode()).decode(),
        "page_age": page.age or None,
    }


def _cited(page: Page) -> dict[str, Any]:
    citation = {
        "type": "web_search_result_location",
        "url": page.url,
        "title": page.title,
        "encrypted_index": base64.b64encode(page.url.encode()).decode(),
        "cited_text": page.excerpt[:_CITED_CHARACTERS],
    }
    words = f"{page.title} ({page.url}): {page.excerpt}\n\n"
    return {"type": "text", "text": words, "citations": [citation]}


def _parts(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How a stream sends a block: what it starts with, and the deltas that complete it."""
    match block["type"]:
        case "server_tool_use":
            written = json.dumps(block["input"])
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": written}]
        case "text":
            citations = block.get("citations", [])
            deltas = [{"type": "citations_delta", "citation": each} for each in citations]
            empty = {**block, "text": "", **({"citations": []} if citations else {})}
            return empty, [*deltas, {"type": "text_delta", "text": block["text"]}]
        case _:
            return dict(block), []
