"""Short ways to write Messages requests in tests."""

import json
from typing import Any, Final

from anyclaude.messages.requests import MessagesRequest, parse_messages_request

Block = dict[str, Any]
BASH: Final[Block] = {
    "name": "Bash",
    "description": "Runs a command.",
    "input_schema": {
        "type": "object",
        "properties": {"command": {"type": "string"}},
        "required": ["command"],
    },
}


def request(*messages: Block, **fields: Any) -> MessagesRequest:
    """A request that was parsed from JSON, as one that a client sent."""
    body = {"model": "any", "max_tokens": 16, "messages": list(messages), **fields}
    return parse_messages_request(json.dumps(body).encode())


def user(*content: str | Block) -> Block:
    return _message("user", content)


def assistant(*content: str | Block) -> Block:
    return _message("assistant", content)


def system(*content: str | Block) -> Block:
    return _message("system", content)


def _message(role: str, content: tuple[str | Block, ...]) -> Block:
    """A single string stays a string; anything else becomes a list of blocks."""
    if len(content) == 1 and isinstance(content[0], str):
        return {"role": role, "content": content[0]}
    return {"role": role, "content": [text(c) if isinstance(c, str) else c for c in content]}


def text(words: str, **fields: Any) -> Block:
    return {"type": "text", "text": words, **fields}


def thinking(words: str) -> Block:
    return {"type": "thinking", "thinking": words, "signature": "not ours"}


def call(call_id: str, command: str = "ls", name: str = "Bash") -> Block:
    return {"type": "tool_use", "id": call_id, "name": name, "input": {"command": command}}


def result(call_id: str, content: str | list[Block] = "done", **fields: Any) -> Block:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}
