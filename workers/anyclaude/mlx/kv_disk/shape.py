"""What a segment of this model looks like: names, types and shapes of its arrays, and its states.

Taken from a cache of two tokens. A record that came from elsewhere has to fit, or the model would
fail on it in the middle of somebody's request.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.mlx.adapter import LanguageModel, prefill
from anyclaude.mlx.kv.live import LiveCache
from anyclaude.mlx.kv.segments import extract
from anyclaude.mlx.kv.tree import Node
from anyclaude.mlx.kv.window import ALIGNMENT
from anyclaude.mlx.kv_disk.record import CorruptRecordError, Tensor
from anyclaude.mlx.kv_disk.records import encode
from anyclaude.mlx.kv_disk.writing import raw_arrays
from anyclaude.mlx.tokens import token_array

_SAMPLE: Final = token_array([0, 0])
_ARRAY: Final = "$array"
# Places in a saved state: of numbers that are the model's own, and of the state's length. The same
# classes as in `records`; arrays of those named here have a token axis, others have fixed shapes.
_FIXED_PLACES: Final[Mapping[str, tuple[int, ...]]] = {
    "WindowKVCache": (4, 5),
    "RotatingKVCache": (3, 4),
    "ChunkedKVCache": (3,),
}
_OFFSET_PLACE: Final = 2


def _window_holds(held: int, values: Sequence[Any]) -> bool:
    offset, base, window = values[2:5]
    earliest = 0 if base == 0 else base + window - 1
    return bool(held == offset - base and base % ALIGNMENT == 0 and offset >= earliest)


def _rotating_holds(held: int, values: Sequence[Any]) -> bool:
    return bool(0 < values[5] <= held)


def _chunked_holds(held: int, values: Sequence[Any]) -> bool:
    return bool(0 < values[2] - values[4] <= held)


_HOLDS: Final[Mapping[str, Callable[[int, Sequence[Any]], bool]]] = {
    "WindowKVCache": _window_holds,
    "RotatingKVCache": _rotating_holds,
    "ChunkedKVCache": _chunked_holds,
}


@dataclass(frozen=True)
class SegmentShape:
    """Types and shapes of arrays by name, and the meta beside them."""

    arrays: Mapping[str, tuple[str, tuple[int, ...]]]
    meta: Mapping[str, Any]

    @classmethod
    def of(cls, model: LanguageModel, kv_bits: int) -> "SegmentShape | None":
        """MLX thread only; None for a model whose states are never stored."""
        live = LiveCache.empty(model, kv_bits=kv_bits, max_checkpoints=1)
        prefill(model, live.layers, _SAMPLE)
        live.tokens.extend(_SAMPLE)
        arrays = extract(live, 0, len(_SAMPLE))
        content = encode(Node(None, 0, _SAMPLE, arrays, live.state()))
        if content is None:
            return None
        shapes = {raw.name: (raw.dtype, raw.shape) for raw in raw_arrays(content[0])}
        return cls(shapes, content[1])

    def check(
        self, arrays: Sequence[Tensor], meta: Mapping[str, Any], *, start: int, end: int
    ) -> None:
        """Raises CorruptRecordError unless a segment from `start` to `end` may look so."""
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
        for place in _FIXED_PLACES[name]:
            if values[place] != expected[place]:
                raise CorruptRecordError("a saved state has other settings")
        if values[_OFFSET_PLACE] != end or not all(
            0 <= value <= end for value in _numbers(values, skip=_FIXED_PLACES[name])
        ):
            raise CorruptRecordError("a saved state has another length")
        self._check_window(name, values, found)

    def _check_fixed(self, value: object, found: Mapping[str, Tensor]) -> None:
        if isinstance(value, dict):
            self._check_shape(found[value[_ARRAY]], tokens=None)
        elif isinstance(value, list):
            for item in value:
                self._check_fixed(item, found)

    def _check_window(self, name: str, values: Sequence[Any], found: Mapping[str, Tensor]) -> None:
        """Keys and values hold the same tokens, and a window of ours just those that it says."""
        keys, others = (found[part[_ARRAY]] for part in values[:2])
        held = keys.shape[-2] if len(keys.shape) >= 2 else 0
        self._check_shape(keys, held)
        self._check_shape(others, held)
        if not _HOLDS[name](held, values):
            raise CorruptRecordError("a saved state holds other tokens than it says")


def _check_kind(value: object, known: object) -> None:
    """Raises CorruptRecordError unless both are built alike; only numbers may differ."""
    alike = type(value) is type(known)
    if alike and isinstance(value, list) and isinstance(known, list):
        alike = len(value) == len(known)
        for ours, theirs in zip(value, known, strict=False):
            _check_kind(ours, theirs)
    elif alike and isinstance(value, dict):
        alike = value == known
    if not alike:
        raise CorruptRecordError("a saved state is built in another way")


def _numbers(values: Sequence[Any], skip: Sequence[int]) -> list[int]:
    return [v for place, v in enumerate(values) if isinstance(v, int) and place not in skip]
