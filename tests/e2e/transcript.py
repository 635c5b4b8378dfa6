"""What Claude Code prints with `--output-format stream-json`, parsed.

One JSON object a line: `system`, `assistant` (one content block each; blocks of one answer share
a message id), `user` (tool results) and, last, `result`. Lines and fields that are not known here
are passed over: the format grows.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one Messages request, as the server reported them when the answer began."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Length of the whole prompt."""
        return self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens

    @property
    def reused(self) -> float:
        """Share of the prompt that came from the cache, 0 to 1."""
        return self.cache_read_input_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    @property
    def computed(self) -> float:
        """Share of the prompt that did not come from the cache, 0 to 1."""
        return 1 - self.reused


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call that the model made."""

    id: str
    name: str
    input: _Json


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The client's result of a tool call."""

    tool_use_id: str
    text: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class Transcript:
    """One run of the client from its prompt to its exit."""

    exit_code: int
    session_id: str | None
    texts: tuple[str, ...]
    tool_uses: tuple[ToolUse, ...]
    tool_results: tuple[ToolResult, ...]
    usages: tuple[Usage, ...]
    """One for each answered Messages request, in order."""
    result: str | None
    is_error: bool
    stderr: str
    stray_lines: tuple[str, ...]
    """Lines of the output that are not JSON: what a client that could not start says."""

    @property
    def succeeded(self) -> bool:
        """Whether the client ran to its end and reported success."""
        return self.exit_code == 0 and self.result is not None and not self.is_error


def parse_transcript(stdout: str, stderr: str, exit_code: int) -> Transcript:
    """The transcript of a finished run, from what the process printed."""
    events, stray_lines = _read_lines(stdout)
    final = next((event for event in events if event.get("type") == "result"), {})
    session_id = next((str(e["session_id"]) for e in events if e.get("session_id")), None)
    answered = list(_blocks(events, "assistant"))
    returned = list(_blocks(events, "user"))
    return Transcript(
        exit_code=exit_code,
        session_id=session_id,
        texts=tuple(block["text"] for block in answered if block["type"] == "text"),
        tool_uses=tuple(_tool_use(block) for block in answered if block["type"] == "tool_use"),
        tool_results=tuple(
            _tool_result(block) for block in returned if block["type"] == "tool_result"
        ),
        usages=tuple(_usages(events)),
        result=final.get("result"),
        is_error=bool(final.get("is_error", False)),
        stderr=stderr,
        stray_lines=stray_lines,
    )


def _read_lines(stdout: str) -> tuple[list[_Json], tuple[str, ...]]:
    events: list[_Json] = []
    stray: list[str] = []
    for line in filter(str.strip, stdout.splitlines()):
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            event = None
        if isinstance(event, dict):
            events.append(event)
        else:
            stray.append(line)
    return events, tuple(stray)


def _blocks(events: Iterable[_Json], kind: str) -> Iterator[_Json]:
    for event in events:
        if event.get("type") == kind:
            content = event["message"]["content"]
            yield from [{"type": "text", "text": content}] if isinstance(content, str) else content


def _usages(events: Iterable[_Json]) -> Iterable[Usage]:
    """Usage by message id: the events of one answer repeat it."""
    by_message: dict[str, Usage] = {}
    for event in events:
        if event.get("type") == "assistant":
            message = event["message"]
            by_message[message["id"]] = _usage(message["usage"])
    return by_message.values()


def _usage(usage: _Json) -> Usage:
    return Usage(
        input_tokens=usage.get("input_tokens") or 0,
        cache_creation_input_tokens=usage.get("cache_creation_input_tokens") or 0,
        cache_read_input_tokens=usage.get("cache_read_input_tokens") or 0,
    )


def _tool_use(block: _Json) -> ToolUse:
    return ToolUse(block["id"], block["name"], block["input"])


def _tool_result(block: _Json) -> ToolResult:
    content = block.get("content") or ""
    parts = [{"text": content}] if isinstance(content, str) else content
    text = "".join(part.get("text", "") for part in parts)
    return ToolResult(block["tool_use_id"], text, bool(block.get("is_error", False)))
