"""Summaries of requests, by which two requests are compared to find what changed.

The summary of a stable prefix holds digests only, so it may be written to disk. Messages are
compared by what reaches the model: `cache_control`, signatures, and whether a text is a string or a
list make no difference.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from anyclaude.cache.v1 import cache_pb2
from anyclaude.cache.v1.cache_pb2 import ToolChange
from anyclaude.messages.readable import join
from anyclaude.messages.requests import CountTokensRequest, Message
from anyclaude.mlx.prompt.canonical import canonicalise, wants_thinking
from anyclaude.worker.v1 import worker_pb2 as pb

_DIGEST_CHARACTERS = 16


@dataclass(frozen=True)
class PrefixSummary:
    """The stable prefix of a request: tools and instructions as digests."""

    # For each tool by name, in order: the digest of each value within it, by its path.
    tools: Mapping[str, Mapping[str, str]]
    # Digests of the system texts before the first turn.
    instructions: tuple[str, ...]
    thinking: bool

    @classmethod
    def of(cls, request: CountTokensRequest) -> Self:
        conversation = canonicalise(request)
        functions = [tool["function"] for tool in conversation.tools]
        return cls(
            {function["name"]: dict(_leaves(_with_api_names(function))) for function in functions},
            tuple(map(_digest, conversation.leading)),
            wants_thinking(request),
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: `text` is something else.
        """
        values = json.loads(text)
        return cls(values["tools"], tuple(values["instructions"]), bool(values["thinking"]))


def _with_api_names(function: Mapping[str, Any]) -> dict[str, Any]:
    """The function with the names that the Messages API uses."""
    return {"description": function["description"], "input_schema": function["parameters"]}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The digest of every value that contains no other, by its path; key order counts too."""
    if isinstance(value, Mapping) and value:
        for place, (key, item) in enumerate(value.items()):
            for name, digest in _leaves(item, f"{path}.{key}" if path else key):
                yield name, f"{place}:{digest}"
    else:
        yield path, _digest(json.dumps(value))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def tool_changes(old: PrefixSummary, new: PrefixSummary) -> tuple[ToolChange, ...]:
    """Each tool that was added, removed or changed; if there is none, the first that moved."""
    removed = [name for name in old.tools if name not in new.tools]
    changes = [_change(old, new, name) for name in new.tools]
    changes += [ToolChange(name=name, kind=cache_pb2.CHANGE_KIND_REMOVED) for name in removed]
    found = tuple(change for change in changes if change)
    return found or tuple(_moved(list(old.tools), list(new.tools)))


def _change(old: PrefixSummary, new: PrefixSummary, name: str) -> ToolChange | None:
    if name not in old.tools:
        return ToolChange(name=name, kind=cache_pb2.CHANGE_KIND_ADDED)
    before, after = old.tools[name], new.tools[name]
    paths = tuple(path for path in {**before, **after} if before.get(path) != after.get(path))
    if not paths:
        return None
    return ToolChange(name=name, kind=cache_pb2.CHANGE_KIND_CHANGED, fields=paths)


def _moved(old: list[str], new: list[str]) -> Iterator[ToolChange]:
    """The first tool whose place another tool had before."""
    places = zip(old, new, strict=False)
    moved = next((now for was, now in places if was != now), None)
    if moved is not None:
        yield ToolChange(name=moved, kind=cache_pb2.CHANGE_KIND_MOVED)


def instruction_changes(old: PrefixSummary, new: PrefixSummary) -> tuple[int, ...]:
    """The positions of system texts that differ."""
    longest = max(len(old.instructions), len(new.instructions))
    return tuple(
        place
        for place in range(longest)
        if old.instructions[place : place + 1] != new.instructions[place : place + 1]
    )


@dataclass(frozen=True)
class MessageSummary:
    """What the model sees of one message."""

    role: str
    text: str = ""
    thinking: str = ""
    # Calls, results and all other blocks as JSON, in order.
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, message: Message) -> Self:
        blocks = message.blocks()
        kinds = ("text", "thinking")
        return cls(
            message.role,
            join(_string(block, "text") for block in blocks),
            join(_string(block, "thinking") for block in blocks),
            tuple(_other(block) for block in blocks if block["type"] not in kinds),
        )

    def texts(self) -> Iterator[str]:
        """Texts by which the message can be recognised in a rendered prompt."""
        yield from (self.text, self.thinking)
        for other in self.others:
            block = json.loads(other)
            yield from (str(block.get("name", "")), *_texts(block.get("content")))


def _string(block: Mapping[str, Any], kind: str) -> str:
    text = block.get(kind) if block["type"] == kind else ""
    return text if isinstance(text, str) else ""


def _other(block: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in block.items() if key != "cache_control"}
    if isinstance(kept.get("content"), str):
        kept["content"] = [{"type": "text", "text": kept["content"]}]
    elif isinstance(kept.get("content"), list):
        kept["content"] = [
            {key: value for key, value in part.items() if key != "cache_control"}
            for part in kept["content"]
            if isinstance(part, dict)
        ]
    return json.dumps(kept, sort_keys=True)


def _texts(content: Any) -> Iterator[str]:
    for part in content if isinstance(content, list) else ():
        yield str(part.get("text", ""))


class AnswerRecorder:
    """Collects the events of an answer into the message that its client will send back."""

    def __init__(self) -> None:
        self._blocks: list[tuple[pb.BlockStart, list[str]]] = []

    def add(self, event: pb.GenerateResponse) -> None:
        if event.HasField("block_start"):
            self._blocks.append((event.block_start, []))
        elif event.HasField("block_delta"):
            delta = event.block_delta
            kind = delta.WhichOneof("delta")
            if kind != "signature":
                self._blocks[-1][1].append(getattr(delta, kind))

    def echo(self) -> Message:
        """The message as the client will send it back."""
        blocks = [_echoed(start, "".join(pieces)) for start, pieces in self._blocks]
        return Message(role="assistant", content=blocks)

    def message(self) -> MessageSummary:
        return MessageSummary.of(self.echo())

    @property
    def size(self) -> int:
        """The number of characters collected."""
        return sum(len(piece) for _, pieces in self._blocks for piece in pieces)


def _echoed(start: pb.BlockStart, text: str) -> dict[str, Any]:
    kind = start.WhichOneof("block")
    if kind != "tool_use":
        return {"type": kind, kind: text}
    tool = start.tool_use
    return {"type": kind, "id": tool.id, "name": tool.name, "input": _arguments(text)}


def _arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        # A call that a limit cut off. The client sends it back differently, or not at all.
        return text
