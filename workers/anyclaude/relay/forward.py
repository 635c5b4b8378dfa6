"""The Forward call: one HTTP request is passed through, with its bytes and headers unchanged.

The exceptions belong to one connection: hop-by-hop headers (RFC 9110, section 7.6.1), Host, and
Expect, to which the front end has responded. A configured key replaces the client's credentials;
without one they are passed on. Neither is logged.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from functools import partial
from typing import Final

from anyclaude.relay.client import Headers, Response
from anyclaude.relay.upstream import Upstream
from anyclaude.worker.v1 import worker_pb2 as pb

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_CREDENTIALS: Final = frozenset({"authorization", "x-api-key"})
# Headers for this service, not for the server behind it.
_OWN_PREFIX: Final = "x-anyclaude-"

Parts = AsyncGenerator[pb.ForwardResponse, None]


async def forward(
    upstream: Upstream, head: pb.ForwardRequestHead, rest: AsyncIterator[pb.ForwardRequest]
) -> Parts:
    """The server's response: its head, then its body in pieces.

    Raises:
        ApiError: no response began, or it broke off.
    """
    headers = _request_headers(upstream, head.headers)
    path = f"{head.path}?{head.query}" if head.query else head.path
    send = partial(upstream.client.send, head.method, path, headers, _body(head, rest))
    with upstream.exchange():
        async with send(decompress=False) as response:
            upstream.note_answering()
            yield pb.ForwardResponse(head=_response_head(response))
            response.begun = True
            while chunk := await response.next():
                yield pb.ForwardResponse(body=chunk)


def _request_headers(upstream: Upstream, headers: Iterable[pb.HttpHeader]) -> Headers:
    key = upstream.key.read()
    dropped = {"host"} | (_CREDENTIALS if key else set())
    kept = [
        (header.name.encode("latin-1"), header.value.encode("latin-1"))
        for header in _end_to_end(headers)
        if header.name.lower() not in dropped and not header.name.lower().startswith(_OWN_PREFIX)
    ]
    return [*kept, (b"x-api-key", key.encode())] if key else kept


def _end_to_end(headers: Iterable[pb.HttpHeader]) -> Iterator[pb.HttpHeader]:
    """Headers without those that belong to the connection; the Connection header may name more."""
    listed = list(headers)
    named = {
        name.strip().lower()
        for header in listed
        if header.name.lower() == "connection"
        for name in header.value.split(",")
    }
    return (header for header in listed if header.name.lower() not in _HOP_BY_HOP | named)


def _body(
    head: pb.ForwardRequestHead, rest: AsyncIterator[pb.ForwardRequest]
) -> AsyncIterator[bytes] | None:
    names = {header.name.lower() for header in head.headers}
    if not names & {"content-length", "transfer-encoding"}:
        return None
    return (part.body async for part in rest if part.body)


def _response_head(response: Response) -> pb.ForwardResponseHead:
    headers = [
        pb.HttpHeader(name=name.decode("latin-1"), value=value.decode("latin-1"))
        for name, value in response.headers.raw
    ]
    return pb.ForwardResponseHead(status=response.status, headers=_end_to_end(headers))
