"""A prompt of Claude Code's size: 18,490 tokens of tools and instructions, invented here."""

import json
import random
from typing import Any

from anyclaude.messages.requests import parse_messages_request
from anyclaude.mlx.prompt import PromptRenderer

STABLE_TOKENS = 18_490
TOOL_COUNT = 25
WORDS = (
    *("file", "line", "test", "branch", "commit", "search", "replace", "run", "read", "write"),
    *("module", "error", "trace", "build", "request", "answer", "cache", "token", "model"),
    *("prefix", "session", "worker", "folder", "script", "option", "value"),
)


def coding_assistant(renderer: PromptRenderer, seed: int) -> dict[str, Any]:
    """A request body whose tools and instructions have exactly STABLE_TOKENS tokens."""
    rng = random.Random(seed)
    offered = tools(rng)
    words: list[str] = [f"You are coding assistant number {seed}."]
    while _stable(renderer, offered, words) < STABLE_TOKENS:
        missing = STABLE_TOKENS - _stable(renderer, offered, words)
        words += [rng.choice(WORDS) for _ in range(max(1, missing // 8))]
    # Words are longer than a token, so the text ends with single characters.
    while _stable(renderer, offered, words) > STABLE_TOKENS:
        words.pop()
    while _stable(renderer, offered, words) < STABLE_TOKENS:
        words[-1] += rng.choice("~^|")
    return _body(offered, words)


def tools(rng: random.Random) -> list[dict[str, Any]]:
    return [_tool(rng, number) for number in range(TOOL_COUNT)]


def _stable(renderer: PromptRenderer, tools: list[dict[str, Any]], words: list[str]) -> int:
    request = parse_messages_request(json.dumps(_body(tools, words)).encode())
    return renderer.render(request).stable_tokens


def _body(tools: list[dict[str, Any]], words: list[str]) -> dict[str, Any]:
    return {
        "model": "benchmark",
        "max_tokens": 4,
        "temperature": 0,
        "system": [{"type": "text", "text": " ".join(words)}],
        "tools": tools,
        "messages": [{"role": "user", "content": "Say which file to open first."}],
    }


def _tool(rng: random.Random, number: int) -> dict[str, Any]:
    return {
        "name": f"Tool{number}",
        "description": " ".join(rng.choice(WORDS) for _ in range(90)),
        "input_schema": {
            "type": "object",
            "properties": {
                name: {"type": "string", "description": f"the {name} to use"}
                for name in rng.sample(WORDS, 4)
            },
            "required": [],
        },
    }
