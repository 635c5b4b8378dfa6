"""Tree nodes as disk records, and back.

A record is found by the digest of all token ids up to its end and names its parent by the digest of
those before its start, so splitting a node above or below changes neither. Layer states are rebuilt
through an explicit table of classes, never by a name that a file chooses.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import mlx.core as mx
from anyclaude.mlx.adapter import ArraysCache, ChunkedKVCache, Layer, RotatingKVCache
from anyclaude.mlx.kv.lineage import LineageKey
from anyclaude.mlx.kv.tree import Node, SegmentArrays, States
from anyclaude.mlx.kv.window import WindowKVCache
from anyclaude.mlx.tokens import TokenArray

_CLASSES: Final[Mapping[str, Any]] = {
    cls.__name__: cls for cls in (ArraysCache, ChunkedKVCache, RotatingKVCache, WindowKVCache)
}
_ARRAY: Final = "$array"
# Part of what records are kept under: changes when what they hold is read in another way.
RECORD_LAYOUT: Final = 1


@dataclass(frozen=True)
class Label:
    """What the index keeps of a node beside its tokens."""

    agent_id: str
    stable_digest: str
    # The stable prefix of the conversation that the node belongs to.
    lineage_digest: str
    is_main: bool
    has_states: bool

    def to_text(self) -> str:
        return json.dumps(self.__dict__, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> "Label":
        return cls(**json.loads(text))

    @classmethod
    def of(cls, node: Node, key: LineageKey) -> "Label":
        return cls(
            key.agent_id, node.stable_digest, key.stable_digest, node.is_main, bool(node.states)
        )


def record_id(token_ids: TokenArray) -> str:
    """Names the record that ends after `token_ids`; empty for none."""
    if not len(token_ids):
        return ""
    return hashlib.sha256(token_ids.astype("<i4").tobytes()).hexdigest()[:32]


def encode(node: Node) -> tuple[dict[str, mx.array], dict[str, Any]] | None:
    """A node's arrays by name and what rebuilds it; None if a layer's class is not known here."""
    assert node.arrays is not None
    arrays = {
        f"kv.{leaf}.{part}": array
        for leaf, parts in enumerate(node.arrays)
        for part, array in enumerate(parts)
    }
    meta: dict[str, Any] = {"leaves": [len(parts) for parts in node.arrays], "states": {}}
    for index, state in node.states.items():
        if type(state).__name__ not in _CLASSES:
            return None
        values = _flatten(state.state, f"state.{index}", arrays)
        meta["states"][str(index)] = {"class": type(state).__name__, "values": values}
    return arrays, meta


def decode(arrays: Mapping[str, mx.array], meta: Mapping[str, Any]) -> tuple[SegmentArrays, States]:
    """The opposite of `encode`.

    Raises:
        KeyError, TypeError: the record does not hold what its meta says.
    """
    segment = [
        tuple(arrays[f"kv.{leaf}.{part}"] for part in range(parts))
        for leaf, parts in enumerate(meta["leaves"])
    ]
    states = {
        int(index): _state(_CLASSES[state["class"]], _unflatten(state["values"], arrays))
        for index, state in meta["states"].items()
    }
    return segment, states


def _state(cls: Any, values: Any) -> Layer:
    return cls.from_state(values)


def _flatten(value: Any, name: str, arrays: dict[str, mx.array]) -> Any:
    """JSON for `value`; arrays move to `arrays` and leave their name."""
    if isinstance(value, mx.array):
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, list | tuple):
        return [_flatten(item, f"{name}.{place}", arrays) for place, item in enumerate(value)]
    return value


def _unflatten(value: Any, arrays: Mapping[str, mx.array]) -> Any:
    if isinstance(value, dict):
        return arrays[value[_ARRAY]]
    if isinstance(value, list):
        return [_unflatten(item, arrays) for item in value]
    return value
