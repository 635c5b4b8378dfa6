"""Readers of responses for tests, without a server."""

import json
from typing import Any

from anyclaude.messages.requests import MessagesRequest, parse_messages_request
from anyclaude.relay.anthropic.answer import MessageReader
from anyclaude.relay.dialect import Target
from anyclaude.relay.openai.answer import ChatReader
from anyclaude.relay.quirks import Quirks
from anyclaude.runtime.upstreams import UpstreamSettings


def message_reader(**fields: Any) -> MessageReader:
    return MessageReader(*_asked(fields), 42)


def chat_reader(**fields: Any) -> ChatReader:
    return ChatReader(*_asked(fields), 42)


def _asked(fields: dict[str, Any]) -> tuple[MessagesRequest, Target]:
    messages = [{"role": "user", "content": "q"}]
    raw = {"model": "m", "max_tokens": 9000, "messages": messages, **fields}
    request = parse_messages_request(json.dumps(raw).encode())
    return request, Target(UpstreamSettings(), fields.get("model", ""), Quirks())
