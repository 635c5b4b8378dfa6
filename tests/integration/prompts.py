"""Plain requests for tests that check the service rather than its answers."""

import json
from collections.abc import Iterator
from typing import Any

import httpx

LESSON = "Read the file before you change it, then run the tests and say what failed. "


def body(words: str = "hi there", *, sentences: int = 40, **fields: Any) -> dict[str, Any]:
    """A request of a session with `sentences` of instructions."""
    request: dict[str, Any] = {
        "model": "any",
        "max_tokens": 8,
        "temperature": 0,
        "messages": [{"role": "user", "content": words}],
    }
    if sentences:
        request["system"] = LESSON * sentences
        # Without tools it would pass for a title call, which leaves no cache.
        request["tools"] = [{"name": "Read", "input_schema": {"type": "object"}}]
    return request | fields


def session(name: str) -> dict[str, str]:
    return {"x-claude-code-session-id": name}


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream, as they come."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
