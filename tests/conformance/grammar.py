"""The rules of a stream, checked independently of any server's code.

    message_start (content_block_start content_block_delta+ content_block_stop)* message_delta+
    message_stop; pings anywhere; an `error` may end it

Every event is validated by the official client's own types too: they refuse what its accumulators
let pass (an unknown stop reason, a text block without text, missing usage).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

Event = Mapping[str, Any]

STOP_REASONS: Final = frozenset(
    {
        *("end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"),
        "model_context_window_exceeded",
    }
)
_CUTS: Final = frozenset({"max_tokens", "model_context_window_exceeded"})
_EVENTS: Final[TypeAdapter[Any]] = TypeAdapter(RawMessageStreamEvent)
_DELTAS: Final = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
    "server_tool_use": {"input_json_delta"},
}


@dataclass
class Message:
    """The sum of one response's events."""

    start: dict[str, Any] = field(default_factory=dict)
    content: list[dict[str, Any]] = field(default_factory=list)
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    pings: int = 0

    @property
    def text(self) -> str:
        return "".join(block.get("text", "") for block in self.content)

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [block for block in self.content if block["type"] == kind]


def check(events: Iterable[Event]) -> Message:
    """Folds a whole stream; fails at the first event that is not allowed there."""
    checker = _Checker()
    for event in events:
        checker.feed(event)
    assert checker.ended, "the stream ends without message_stop or error"
    return checker.message


class _Checker:
    def __init__(self) -> None:
        self.message = Message()
        self.ended = False
        self._started = False
        self._open: dict[str, Any] | None = None
        self._pieces: list[str] = []
        self._deltas: list[str] = []

    def feed(self, event: Event) -> None:
        kind = event["type"]
        assert not self.ended, f"{kind} after the end"
        if kind == "ping":
            self.message.pings += 1
            return
        if kind == "error":
            assert isinstance(event["error"]["message"], str)
            self.message.error = event["error"]
            self.ended = True
            return
        _EVENTS.validate_python(event)
        handler = getattr(self, f"_{kind}", None)
        assert handler is not None, f"unknown event {kind}"
        assert self._started == (kind != "message_start"), f"{kind} out of place"
        handler(event)

    def _message_start(self, event: Event) -> None:
        message = event["message"]
        assert message["content"] == []
        assert message["role"] == "assistant"
        assert message["type"] == "message"
        assert message["stop_reason"] is None
        assert message["stop_sequence"] is None
        self.message.start = message
        self.message.usage = dict(message["usage"])
        self._started = True

    def _content_block_start(self, event: Event) -> None:
        assert self._open is None, "blocks interleave"
        assert self.message.stop_reason is None, "a block after message_delta"
        assert event["index"] == len(self.message.content), f"index {event['index']} leaves a gap"
        self._open = dict(event["content_block"])
        if self._open["type"] == "text":
            assert self._open["text"] == ""
        if self._open["type"] == "tool_use":
            assert self._open["input"] == {}
            ids = [block["id"] for block in self.message.of_type("tool_use")]
            assert self._open["id"] not in ids, "two calls under one id"
        self._pieces, self._deltas = [], []
        self.message.content.append(self._open)

    def _content_block_delta(self, event: Event) -> None:
        block, delta = self._current(event), event["delta"]
        assert delta["type"] in _DELTAS[block["type"]], f"{delta['type']} in {block['type']}"
        assert "signature_delta" not in self._deltas, "a delta after the signature"
        self._deltas.append(delta["type"])
        if delta["type"] == "signature_delta":
            block["signature"] = delta["signature"]
            return
        key = {"text_delta": "text", "thinking_delta": "thinking"}.get(delta["type"])
        self._pieces.append(delta[key or "partial_json"])
        # A lone half of a surrogate pair cannot be encoded.
        self._pieces[-1].encode()

    def _content_block_stop(self, event: Event) -> None:
        block = self._current(event)
        assert self._deltas, "a block without a delta"
        whole = "".join(self._pieces)
        if block["type"] in ("text", "thinking"):
            block[block["type"]] = whole
        else:
            block["input"] = json.loads(whole)
            assert isinstance(block["input"], dict), f"input is {whole}"
        self._open = None

    def _current(self, event: Event) -> dict[str, Any]:
        assert self._open is not None, f"{event['type']} without an open block"
        assert event["index"] == len(self.message.content) - 1
        return self._open

    def _message_delta(self, event: Event) -> None:
        # A call that was cut has no end, in the API's own streams too.
        cut = event["delta"]["stop_reason"] in _CUTS
        is_call = self._open is not None and self._open["type"] == "tool_use"
        assert self._open is None or (is_call and cut), "message_delta inside a block"
        self._open = None
        self.message.stop_reason = event["delta"]["stop_reason"] or self.message.stop_reason
        self.message.stop_sequence = event["delta"].get("stop_sequence")
        told = {name: value for name, value in event["usage"].items() if value is not None}
        assert told["output_tokens"] >= (self.message.usage.get("output_tokens") or 0)
        self.message.usage |= told

    def _message_stop(self, _: Event) -> None:
        assert self._open is None, "message_stop inside a block"
        assert self.message.stop_reason in STOP_REASONS, f"{self.message.stop_reason}"
        check_stop_reason(self.message.content, self.message.stop_reason)
        self.ended = True


def check_stop_reason(content: Iterable[Mapping[str, Any]], reason: str | None) -> None:
    """Checks the stop reason, by which clients run tools."""
    calls = any(block["type"] == "tool_use" for block in content)
    if calls:
        assert reason != "end_turn", "calls, but the turn is said to have ended"
    if reason == "tool_use":
        assert calls, "stop_reason tool_use without a call"
