"""What a request says, in a form that tells what changed between two of them.

The stable prefix is kept as digests alone, so its facts may be written to disk. Messages are
compared as they are, by what reaches the model: `cache_control`, signatures and the way of writing
a text make no difference.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Self

from anyclaude.cache.v1 import cache_pb2
from anyclaude.messages.requests import CountTokensRequest, Message
from anyclaude.mlx.prompt.canonical import canonicalise
from anyclaude.mlx.prompt.content import join
from anyclaude.worker.v1 import worker_pb2 as pb

_DIGEST_CHARACTERS = 16


class ChangeKind(Enum):
    """How a tool differs; each value is the contract's number."""

    ADDED = cache_pb2.CHANGE_KIND_ADDED
    REMOVED = cache_pb2.CHANGE_KIND_REMOVED
    CHANGED = cache_pb2.CHANGE_KIND_CHANGED
    MOVED = cache_pb2.CHANGE_KIND_MOVED


@dataclass(frozen=True)
class ToolChange:
    name: str
    kind: ChangeKind
    # Paths within the tool; of a changed one only.
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class PrefixSummary:
    """Tools and instructions as digests."""

    # By name, in order: the digest of each value within the tool, by its path.
    tools: Mapping[str, Mapping[str, str]]
    # System texts ahead of the first turn.
    instructions: tuple[str, ...]
    thinking: bool

    @classmethod
    def of(cls, request: CountTokensRequest) -> Self:
        conversation = canonicalise(request)
        functions = [tool["function"] for tool in conversation.tools]
        return cls(
            {function["name"]: dict(_leaves(_spelled(function))) for function in functions},
            tuple(map(_digest, conversation.leading)),
            (request.thinking or {}).get("type") in ("adaptive", "enabled"),
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The opposite of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        values = json.loads(text)
        return cls(values["tools"], tuple(values["instructions"]), bool(values["thinking"]))


def _spelled(function: Mapping[str, Any]) -> dict[str, Any]:
    """The function under the names that the Messages API gives to its parts."""
    return {"description": function["description"], "input_schema": function["parameters"]}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value that holds no other, by its path; order within objects counts too."""
    if isinstance(value, Mapping) and value:
        for place, (key, item) in enumerate(value.items()):
            for name, digest in _leaves(item, f"{path}.{key}" if path else key):
                yield name, f"{place}:{digest}"
    else:
        yield path, _digest(json.dumps(value))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def tool_changes(kept: PrefixSummary, came: PrefixSummary) -> tuple[ToolChange, ...]:
    """What happened to each tool that is not as it was, where it was."""
    gone = [name for name in kept.tools if name not in came.tools]
    changes = [_change(kept, came, name) for name in came.tools]
    changes += [ToolChange(name, ChangeKind.REMOVED) for name in gone]
    found = tuple(change for change in changes if change)
    return found or tuple(_moved(list(kept.tools), list(came.tools)))


def _change(kept: PrefixSummary, came: PrefixSummary, name: str) -> ToolChange | None:
    if name not in kept.tools:
        return ToolChange(name, ChangeKind.ADDED)
    old, new = kept.tools[name], came.tools[name]
    paths = tuple(path for path in {**old, **new} if old.get(path) != new.get(path))
    return ToolChange(name, ChangeKind.CHANGED, paths) if paths else None


def _moved(old: list[str], new: list[str]) -> Iterator[ToolChange]:
    """The first tool that stands in another's place."""
    places = zip(old, new, strict=False)
    yield from [ToolChange(now, ChangeKind.MOVED) for was, now in places if was != now][:1]


def instruction_changes(kept: PrefixSummary, came: PrefixSummary) -> tuple[int, ...]:
    """Positions of system texts that are not as they were."""
    longest = max(len(kept.instructions), len(came.instructions))
    return tuple(
        place
        for place in range(longest)
        if kept.instructions[place : place + 1] != came.instructions[place : place + 1]
    )


@dataclass(frozen=True)
class MessageSummary:
    """One message by what the model learns from it."""

    role: str
    words: str = ""
    thoughts: str = ""
    # Calls, results and whatever else it holds, in order.
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

    def pieces(self) -> Iterator[str]:
        """Texts to know the message by, in its rendering."""
        yield from (self.words, self.thoughts)
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
    """An answer as its client will send it back, gathered from its events."""

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
        """The message that the answer becomes."""
        blocks = [_echoed(start, "".join(pieces)) for start, pieces in self._blocks]
        return Message(role="assistant", content=blocks)

    def message(self) -> MessageSummary:
        return MessageSummary.of(self.echo())

    @property
    def size(self) -> int:
        """Characters held."""
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
        # Cut short by a limit: it comes back as something else, if at all.
        return text
