"""The server under test, as a client sees it through its base URL."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from anthropic import types

from tests.conformance import grammar
from tests.conformance.bodies import HI, Json
from tests.conformance.sse import Frame, Parser

MESSAGES: Final = "/v1/messages?beta=true"
COUNT: Final = "/v1/messages/count_tokens?beta=true"
PROMPT_USAGE: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_ACCEPTED: Final = 200


@dataclass
class Streamed:
    """One finished stream."""

    response: httpx.Response
    raw: bytes
    frames: list[Frame]
    # Seconds from the request to each piece of the body.
    arrivals: list[float] = field(default_factory=list)

    @property
    def events(self) -> list[Json]:
        return [frame.event for frame in self.frames]

    @property
    def message(self) -> grammar.Message:
        """The message that the stream adds up to, with every rule of the grammar checked."""
        return grammar.check(self.events)


class Endpoint:
    """Sends requests in which everything that a case does not set has a default."""

    def __init__(self, base_url: str, api_key: str, model: str) -> None:
        self.base_url = base_url
        self.api_key = api_key
        self.model = model
        self.http = httpx.Client(
            base_url=base_url,
            timeout=120,
            trust_env=False,
            # Otherwise a server that closes its connection after one case would fail the next.
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"x-api-key": api_key, "anthropic-version": "2023-06-01"},
        )

    def body(self, **fields: Any) -> Json:
        """A small valid request; a field of None is left out."""
        whole = {"model": self.model, "max_tokens": 8, "messages": list(HI), **fields}
        return {name: value for name, value in whole.items() if value is not None}

    def post(
        self, path: str = MESSAGES, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        return self.http.post(path, json=self.body(**fields), headers=headers)

    def create(self, **fields: Any) -> Json:
        """A whole response, which must be accepted and be a valid Message."""
        return accepted(self.post(**fields))

    def count(self, **fields: Any) -> int:
        """The result of count_tokens."""
        response = self.post(COUNT, **{"max_tokens": None, **fields})
        assert response.status_code == _ACCEPTED, response.text
        answer = response.json()
        assert answer.keys() == {"input_tokens"}
        assert isinstance(answer["input_tokens"], int)
        return int(answer["input_tokens"])

    @contextmanager
    def open_stream(self, **fields: Any) -> Iterator[httpx.Response]:
        """A stream that the test reads as it arrives."""
        body = self.body(**fields, stream=True)
        with self.http.stream("POST", MESSAGES, json=body) as response:
            yield response

    def stream(self, **fields: Any) -> Streamed:
        """Reads a stream to its end."""
        begun = time.monotonic()
        with self.open_stream(**fields) as response:
            if response.status_code != _ACCEPTED:
                raise AssertionError(f"{response.status_code}: {response.read().decode()}")
            parser, pieces, arrivals = Parser(), [], [0.0]
            frames: list[Frame] = []
            for piece in response.iter_raw():
                arrivals.append(time.monotonic() - begun)
                pieces.append(piece)
                frames += parser.feed(piece)
        assert parser.complete, "the stream ends inside a frame"
        return Streamed(response, b"".join(pieces), frames, arrivals)


def accepted(response: httpx.Response) -> Json:
    """The Message of a response that must be one."""
    assert response.status_code == _ACCEPTED, response.text
    message: Json = response.json()
    types.Message.model_validate(message)
    assert message["stop_reason"] in grammar.STOP_REASONS
    grammar.check_stop_reason(message["content"], message["stop_reason"])
    return message


def prompt_tokens(usage: Json) -> int:
    """The whole prompt, from its three parts."""
    return sum(usage.get(name) or 0 for name in PROMPT_USAGE)


def text_of(message: Json) -> str:
    return "".join(block.get("text", "") for block in message["content"])


def check_refusal(response: httpx.Response, status: int, kind: str) -> str:
    """Checks the error envelope; returns the error's message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    answer = response.json()
    assert answer["type"] == "error"
    assert answer["error"]["type"] == kind
    message: str = answer["error"]["message"]
    assert message
    return message
