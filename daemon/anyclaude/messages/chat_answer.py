"""A message as a chat completion: whole, or as the chunks of a stream.

Thinking is `reasoning_content`, as servers of open models name it. Source: OpenAI's API reference,
"The chat completion object" and "The chat completion chunk object".
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from anyclaude.messages.errors import ApiError
from anyclaude.messages.events import Event

_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_TOO_LONG: Final = "prompt is too long"

DONE: Final = b"data: [DONE]\n\n"
# A comment, which clients skip.
PING: Final = b": ping\n\n"


def completion(message: Mapping[str, Any], now: Callable[[], float] = time.time) -> dict[str, Any]:
    """A whole message as a chat completion."""
    blocks = message["content"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    thought = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    calls = [
        {
            "id": block["id"],
            "type": "function",
            "function": {"name": block["name"], "arguments": json.dumps(block["input"])},
        }
        for block in blocks
        if block["type"] == "tool_use"
    ]
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": None if calls and not text else text,
        "refusal": None,
    }
    if thought:
        answer["reasoning_content"] = thought
    if calls:
        answer["tool_calls"] = calls
    reason = _FINISH_REASONS[message["stop_reason"]]
    return {
        "id": _chat_id(message),
        "object": "chat.completion",
        "created": int(now()),
        "model": message["model"],
        "choices": [{"index": 0, "message": answer, "logprobs": None, "finish_reason": reason}],
        "usage": chat_usage(message["usage"]),
    }


def chat_usage(usage: Mapping[str, int]) -> dict[str, Any]:
    cached = usage["cache_read_input_tokens"]
    prompt = usage["input_tokens"] + usage["cache_creation_input_tokens"] + cached
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage["output_tokens"],
        "total_tokens": prompt + usage["output_tokens"],
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def error_body(error: ApiError) -> dict[str, Any]:
    """An error in OpenAI's envelope."""
    code = "context_length_exceeded" if error.message.startswith(_TOO_LONG) else None
    return {"error": {"message": error.message, "type": error.type, "param": None, "code": code}}


class ChunkEncoder:
    """Turns the events of one message into the bytes of a stream of chunks."""

    def __init__(self, *, tells_usage: bool, now: Callable[[], float] = time.time) -> None:
        self._tells_usage = tells_usage
        self._created = int(now())
        self._head: dict[str, Any] = {}
        self._calls = -1
        self._usage: Mapping[str, int] = {}

    def __call__(self, event: Event) -> bytes:
        match event["type"]:
            case "ping":
                return PING
            case "message_start":
                return self._start(event["message"])
            case "content_block_start":
                return self._begin(event["content_block"])
            case "content_block_delta":
                return self._extend(event["delta"])
            case "message_delta":
                self._usage = event["usage"]
                return self._chunk({}, _FINISH_REASONS[event["delta"]["stop_reason"]])
            case "message_stop":
                return self._end()
            case "error":
                details = event["error"]
                return _data(
                    error_body(ApiError(500, details["message"], None, None, details["type"]))
                )
        return b""

    def _start(self, message: Mapping[str, Any]) -> bytes:
        self._head = {
            "id": _chat_id(message),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": message["model"],
        }
        return self._chunk({"role": "assistant", "content": ""})

    def _begin(self, block: Mapping[str, Any]) -> bytes:
        if block["type"] != "tool_use":
            return b""
        self._calls += 1
        function = {"name": block["name"], "arguments": ""}
        call = {"index": self._calls, "id": block["id"], "type": "function", "function": function}
        return self._chunk({"tool_calls": [call]})

    def _extend(self, delta: Mapping[str, Any]) -> bytes:
        match delta["type"]:
            case "text_delta":
                return self._chunk({"content": delta["text"]})
            case "thinking_delta":
                return self._chunk({"reasoning_content": delta["thinking"]})
            case "input_json_delta":
                function = {"arguments": delta["partial_json"]}
                return self._chunk({"tool_calls": [{"index": self._calls, "function": function}]})
        return b""

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._tells_usage else {}
        return _data({**self._head, "choices": [choice], **usage})

    def _end(self) -> bytes:
        if not self._tells_usage:
            return DONE
        return _data({**self._head, "choices": [], "usage": chat_usage(self._usage)}) + DONE


def _chat_id(message: Mapping[str, Any]) -> str:
    return "chatcmpl-" + str(message["id"]).removeprefix("msg_")


def _data(document: Mapping[str, Any]) -> bytes:
    # ASCII only: some clients split lines at every line end that Unicode knows.
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
