"""The non-streaming response, built from the events that a stream would have sent."""

import json
from typing import Any

from pydantic_core import from_json

from anyclaude.messages.events import Event


class MessageAccumulator:
    """Folds the events of one message into the Message that a non-streaming request gets."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._pieces: list[str] = []
        self._is_open = False

    def add(self, event: Event) -> None:
        """Adds the next event of an `EventMachine`, which is neither a ping nor an error.

        A second message_start begins the message anew.
        """
        match event["type"]:
            case "message_start":
                self._message = {**event["message"], "content": []}
                self._is_open = False
            case "content_block_start":
                self._message["content"].append(dict(event["content_block"]))
                self._pieces = []
                self._is_open = True
            case "content_block_delta":
                self._extend(event["delta"])
            case "content_block_stop":
                self._close(self._message["content"][-1])
                self._is_open = False
            case "message_delta":
                if self._is_open:
                    self._cut(self._message["content"][-1])
                self._message |= event["delta"]
                self._message["usage"] = event["usage"]
                if "context_management" in event:
                    self._message["context_management"] = event["context_management"]

    def message(self) -> dict[str, Any]:
        return self._message

    def _extend(self, delta: dict[str, str]) -> None:
        match delta["type"]:
            case "text_delta":
                self._pieces.append(delta["text"])
            case "thinking_delta":
                self._pieces.append(delta["thinking"])
            case "input_json_delta":
                self._pieces.append(delta["partial_json"])
            case "signature_delta":
                self._message["content"][-1]["signature"] = delta["signature"]

    def _cut(self, block: dict[str, Any]) -> None:
        """Ends a call that was cut: its input is what had arrived, as clients read a stream."""
        partial = "".join(self._pieces)
        given = from_json(partial, allow_partial=True) if partial.strip() else {}
        block["input"] = given if isinstance(given, dict) else {}

    def _close(self, block: dict[str, Any]) -> None:
        whole = "".join(self._pieces)
        match block["type"]:
            case "text" | "thinking":
                block[block["type"]] = whole
            case "tool_use":
                block["input"] = json.loads(whole)
