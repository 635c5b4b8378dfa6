"""One HTTP endpoint that answers prompts: sends a conversation and times its streamed answer."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx2

# A local model may compute a long prompt for many minutes before its first byte.
READ_SECONDS: Final = 3600.0
CONNECT_SECONDS: Final = 10.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_SHOWN_CHARACTERS: Final = 300


class Dialect(StrEnum):
    """The API that an endpoint speaks."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"


class EndpointError(Exception):
    """The endpoint did not answer, or answered with an error; the message says which."""


@dataclass(frozen=True)
class Conversation:
    """What is asked: instructions, and messages that alternate between user and assistant."""

    system: str
    messages: tuple[tuple[str, str], ...]
    session: str

    def continued(self, answer: str, question: str) -> "Conversation":
        more = (("assistant", answer or "(no text)"), ("user", question))
        return Conversation(self.system, (*self.messages, *more), self.session)


@dataclass(frozen=True)
class Answer:
    """One streamed answer as the client saw it; token counts are the endpoint's own."""

    first_seconds: float
    whole_seconds: float
    prompt_tokens: int
    reused_tokens: int
    output_tokens: int
    text: str
    # When each piece of the answer came, in seconds from the start of the request.
    piece_seconds: tuple[float, ...] = ()


class Endpoint:
    """A connection that stays open between requests, as Claude Code's does; a context manager."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        dialect: Dialect,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self.dialect = dialect
        self._model = model
        self._client = httpx2.Client(
            base_url=base_url.rstrip("/"),
            headers={"x-api-key": api_key, "authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx2.Timeout(read_seconds, connect=CONNECT_SECONDS),
            # A proxy of the environment would stand between this program and its own machine.
            trust_env=urlsplit(base_url).hostname not in _LOOPBACK,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def choose_model(self) -> str:
        """The name of the model to ask for: the given one, or the first that the server lists.

        Raises:
            EndpointError: none was given, and the server lists none.
        """
        if not self._model:
            try:
                self._model = str(self._client.get("/v1/models").json()["data"][0]["id"])
            except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
                raise EndpointError(
                    f"{self._client.base_url} lists no models ({error}); give --model."
                ) from None
        return self._model

    def ask(self, conversation: Conversation, max_tokens: int) -> Answer:
        """Sends the conversation and reads the answer to its end.

        Raises:
            EndpointError: no connection, an error status, or an error event in the stream.
        """
        try:
            try:
                return self._ask(conversation, max_tokens)
            except httpx2.RemoteProtocolError:
                # The server had closed the idle connection.
                return self._ask(conversation, max_tokens)
        except httpx2.HTTPError as error:
            raise EndpointError(
                f"{self._client.base_url}: {str(error) or type(error).__name__}"
            ) from None

    def _ask(self, conversation: Conversation, max_tokens: int) -> Answer:
        path, body = self._request(conversation, max_tokens)
        headers = {
            "anthropic-version": "2023-06-01",
            "x-claude-code-session-id": conversation.session,
        }
        reader = _READERS[self.dialect]()
        began = time.perf_counter()
        with self._client.stream("POST", path, json=body, headers=headers) as response:
            if response.status_code != 200:
                raise EndpointError(_refusal(response.status_code, response.read()))
            for event in _events(response.iter_lines()):
                reader.read(event, time.perf_counter() - began)
        return reader.answer(time.perf_counter() - began)

    def _request(self, conversation: Conversation, max_tokens: int) -> tuple[str, dict[str, Any]]:
        messages = [{"role": role, "content": text} for role, text in conversation.messages]
        body = {"model": self._model, "max_tokens": max_tokens, "temperature": 0, "stream": True}
        if self.dialect is Dialect.ANTHROPIC:
            system = {"system": conversation.system} if conversation.system else {}
            return "/v1/messages", body | system | {"messages": messages}
        if conversation.system:
            messages = [{"role": "system", "content": conversation.system}, *messages]
        options = {"stream_options": {"include_usage": True}}
        return "/v1/chat/completions", body | options | {"messages": messages}


class _Reader(ABC):
    """Collects what the events of one answer say."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.seconds: list[float] = []
        self.prompt_tokens = self.reused_tokens = self.output_tokens = 0

    @abstractmethod
    def read(self, event: Mapping[str, Any], seconds: float) -> None:
        """Takes in one event, which came so many seconds after the start of the request."""

    def answer(self, seconds: float) -> Answer:
        first = self.seconds[0] if self.seconds else seconds
        counts = (self.prompt_tokens, self.reused_tokens, self.output_tokens)
        return Answer(first, seconds, *counts, "".join(self.texts), tuple(self.seconds))

    def token(self, text: str, seconds: float) -> None:
        self.texts.append(text)
        self.seconds.append(seconds)


class _Messages(_Reader):
    """Anthropic's Messages API."""

    def read(self, event: Mapping[str, Any], seconds: float) -> None:
        match event.get("type"):
            case "message_start":
                self._usage(event["message"].get("usage", {}))
            case "content_block_delta":
                self.token(event["delta"].get("text", ""), seconds)
            case "message_delta":
                self._usage(event.get("usage", {}))
            case "error":
                raise EndpointError(str(event["error"].get("message", event["error"])))

    def _usage(self, usage: Mapping[str, Any]) -> None:
        """Later counts replace earlier ones; servers put them into the first or the last event."""
        reused = usage.get("cache_read_input_tokens") or 0
        new = (usage.get("input_tokens") or 0) + (usage.get("cache_creation_input_tokens") or 0)
        if reused + new:
            self.prompt_tokens, self.reused_tokens = reused + new, reused
        self.output_tokens = usage.get("output_tokens") or self.output_tokens


class _Completions(_Reader):
    """OpenAI's chat completions."""

    def read(self, event: Mapping[str, Any], seconds: float) -> None:
        if "error" in event:
            raise EndpointError(str(event["error"]))
        for choice in event.get("choices", ()):
            delta = choice.get("delta") or {}
            text = delta.get("content") or ""
            # The first event only names the role.
            if text or any(
                delta.get(key) for key in ("reasoning", "reasoning_content", "tool_calls")
            ):
                self.token(text, seconds)
        if usage := event.get("usage"):
            self.prompt_tokens = usage.get("prompt_tokens") or 0
            details = usage.get("prompt_tokens_details") or {}
            self.reused_tokens = details.get("cached_tokens") or 0
            self.output_tokens = usage.get("completion_tokens") or 0


_READERS: Final = {Dialect.ANTHROPIC: _Messages, Dialect.OPENAI: _Completions}


def _events(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    """The JSON documents of a stream of server-sent events."""
    for line in lines:
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            yield json.loads(data)


def _refusal(status: int, body: bytes) -> str:
    return f"HTTP status {status}: {body.decode(errors='replace')[:_SHOWN_CHARACTERS]}"
