"""Translates tree nodes to disk records, and back.

A record is found by the digest of all token ids up to its end and names its parent by the digest of
those before its start, so splitting a node above or below changes neither. Layer states are rebuilt
through an explicit table of classes, never by a name that a file chooses. A record that was written
elsewhere has to fit the model, or the model would fail on it in the middle of a request.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import mlx.core as mx
from anyclaude.mlx.adapter import (
    ArraysCache,
    ChunkedKVCache,
    LanguageModel,
    RotatingKVCache,
    prefill,
)
from anyclaude.mlx.kv.lineage import LineageKey
from anyclaude.mlx.kv.live import LiveCache, extract
from anyclaude.mlx.kv.tree import Content, Node, SegmentArrays, States
from anyclaude.mlx.kv.window import ALIGNMENT, WindowKVCache
from anyclaude.mlx.kv_disk.record import CorruptRecordError, Tensor
from anyclaude.mlx.kv_disk.values import Segment
from anyclaude.mlx.kv_disk.writing import raw_arrays
from anyclaude.mlx.tokens import TokenArray, token_array

_CLASSES: Final[Mapping[str, Any]] = {
    cls.__name__: cls for cls in (ArraysCache, ChunkedKVCache, RotatingKVCache, WindowKVCache)
}
_ARRAY: Final = "$array"
# Part of the fingerprint of caches: changes when the content of records is read in another way.
RECORD_LAYOUT: Final = 1
_SAMPLE: Final = token_array([0, 0])
# For each class whose arrays have a token axis: the indexes in its saved state of the numbers that
# belong to the model, and of the state's length. The arrays of other classes have fixed shapes.
_FIXED_PLACES: Final[Mapping[str, tuple[int, ...]]] = {
    "WindowKVCache": (4, 5),
    "RotatingKVCache": (3, 4),
    "ChunkedKVCache": (3,),
}
_OFFSET_PLACE: Final = 2
NO_KEY: Final = LineageKey("", "", "")


@dataclass(frozen=True)
class Label:
    """What a record contains about its node besides the tokens."""

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


def segment_of(node: Node, tokens: TokenArray, key: LineageKey) -> Segment | None:
    """A node as it is stored, with all `tokens` up to its end; None as for `encode`."""
    content = encode(node)
    if content is None:
        return None
    arrays, meta = content
    return Segment(
        record_id=record_id(tokens),
        parent_id=record_id(tokens[: node.start]),
        start=node.start,
        token_ids=node.tokens,
        arrays=arrays,
        meta=meta,
        kind=Label.of(node, key).to_text(),
        session_id=key.session_id,
        pinned=node.pinned,
    )


def encode(node: Node) -> tuple[dict[str, mx.array], dict[str, Any]] | None:
    """A node's arrays by name, and the meta to rebuild it; None if a layer's class is unknown."""
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
        KeyError, TypeError: the record's arrays do not match its meta.
    """
    segment = [
        tuple(arrays[f"kv.{leaf}.{part}"] for part in range(parts))
        for leaf, parts in enumerate(meta["leaves"])
    ]
    states = {
        int(index): _CLASSES[state["class"]].from_state(_unflatten(state["values"], arrays))
        for index, state in meta["states"].items()
    }
    return segment, states


def _flatten(value: Any, name: str, arrays: dict[str, mx.array]) -> Any:
    """JSON for `value`; each array is moved to `arrays` and replaced by its name."""
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


def _window_fits(stored: int, values: Sequence[Any]) -> bool:
    offset, base, window = values[2:5]
    earliest = 0 if base == 0 else base + window - 1
    return bool(stored == offset - base and base % ALIGNMENT == 0 and offset >= earliest)


_FITS: Final[Mapping[str, Callable[[int, Sequence[Any]], bool]]] = {
    "WindowKVCache": _window_fits,
    "RotatingKVCache": lambda stored, values: 0 < values[5] <= stored,
    "ChunkedKVCache": lambda stored, values: 0 < values[2] - values[4] <= stored,
}


@dataclass(frozen=True)
class SegmentShape:
    """The types and shapes of a two-token segment's arrays by name, and its meta."""

    arrays: Mapping[str, tuple[str, tuple[int, ...]]]
    meta: Mapping[str, Any]

    @classmethod
    def of(cls, model: LanguageModel, kv_bits: int) -> "SegmentShape | None":
        """MLX thread only; None for a model whose states are never stored."""
        live = LiveCache.empty(model, kv_bits=kv_bits, max_checkpoints=1)
        prefill(model, live.layers, _SAMPLE)
        live.tokens.extend(_SAMPLE)
        arrays = extract(live, 0, len(_SAMPLE))
        content = encode(Node(None, 0, _SAMPLE, Content(arrays, live.state())))
        if content is None:
            return None
        shapes = {raw.name: (raw.dtype, raw.shape) for raw in raw_arrays(content[0])}
        return cls(shapes, content[1])

    def check(
        self, arrays: Sequence[Tensor], meta: Mapping[str, Any], *, start: int, end: int
    ) -> None:
        """Raises CorruptRecordError unless a segment of these tokens may have these arrays."""
        found = {array.name: array for array in arrays}
        states = meta.get("states")
        if set(meta) != set(self.meta) or not isinstance(states, dict):
            raise CorruptRecordError("what describes it is of another kind")
        if meta["leaves"] != self.meta["leaves"] or states.keys() not in (
            set(),
            self.meta["states"].keys(),
        ):
            raise CorruptRecordError("it has other layers")
        expected = {name for name in self.arrays if states or not name.startswith("state.")}
        if len(found) != len(arrays) or found.keys() != expected:
            raise CorruptRecordError("it has other arrays")
        for name in expected:
            if not name.startswith("state."):
                self._check_shape(found[name], tokens=end - start)
        for index, state in states.items():
            self._check_state(state, self.meta["states"][index], found, end)

    def _check_shape(self, array: Tensor, tokens: int | None) -> None:
        """With `tokens` the last axis but one has that length; with None all axes are fixed."""
        dtype, shape = self.arrays[array.name]
        expected = list(shape)
        if tokens is not None and len(expected) >= 2:
            expected[-2] = tokens
        if (array.dtype, array.shape) != (dtype, tuple(expected)):
            raise CorruptRecordError(f"array {array.name} is {array.dtype} {array.shape}")

    def _check_state(
        self, state: object, known: Mapping[str, Any], found: Mapping[str, Tensor], end: int
    ) -> None:
        name = known["class"]
        if not isinstance(state, dict) or state.keys() != known.keys() or state["class"] != name:
            raise CorruptRecordError("a saved state is of another class")
        values, expected = state["values"], known["values"]
        _check_kind(values, expected)
        if name not in _FIXED_PLACES:
            self._check_fixed(values, found)
            return
        fixed = _FIXED_PLACES[name]
        if any(values[place] != expected[place] for place in fixed):
            raise CorruptRecordError("a saved state has other settings")
        others = (value for place, value in enumerate(values) if place not in fixed)
        lengths = [value for value in others if isinstance(value, int)]
        if values[_OFFSET_PLACE] != end or not all(0 <= length <= end for length in lengths):
            raise CorruptRecordError("a saved state has another length")
        self._check_window(name, values, found)

    def _check_fixed(self, value: object, found: Mapping[str, Tensor]) -> None:
        if isinstance(value, dict):
            self._check_shape(found[value[_ARRAY]], tokens=None)
        elif isinstance(value, list):
            for item in value:
                self._check_fixed(item, found)

    def _check_window(self, name: str, values: Sequence[Any], found: Mapping[str, Tensor]) -> None:
        """Keys and values must have as many tokens as the state's numbers declare."""
        keys, others = (found[part[_ARRAY]] for part in values[:2])
        stored = keys.shape[-2] if len(keys.shape) >= 2 else 0
        self._check_shape(keys, stored)
        self._check_shape(others, stored)
        if not _FITS[name](stored, values):
            raise CorruptRecordError("a saved state holds other tokens than it says")


def _check_kind(value: object, known: object) -> None:
    """Raises CorruptRecordError unless both have the same structure; only numbers may differ."""
    alike = type(value) is type(known)
    if alike and isinstance(value, list) and isinstance(known, list):
        alike = len(value) == len(known)
        for ours, theirs in zip(value, known, strict=False):
            _check_kind(ours, theirs)
    elif alike and isinstance(value, dict):
        alike = value == known
    if not alike:
        raise CorruptRecordError("a saved state is built in another way")
