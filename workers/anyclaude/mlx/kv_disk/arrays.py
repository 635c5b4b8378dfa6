"""MLX arrays as bytes and back, without copies. MLX thread only, but for what MLX's readers call.

Reading goes through `mx.load`, whose arrays are the only ones that MLX neither copies into place
nor clears first: it is shown a file of flat byte arrays, and asks for each of them to be filled.
"""

import itertools
import json
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Final, Protocol, cast

import mlx.core as mx
from anyclaude.mlx.kv_disk.record import ITEM_BYTES, ArrayHeader, RawArray

_DTYPES: Final = {name: getattr(mx, "bool_" if name == "bool" else name) for name in ITEM_BYTES}
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}


class Fill(Protocol):
    """Fills an array's memory, or raises. Several threads of MLX's call it at once."""

    def __call__(self, header: ArrayHeader, memory: memoryview) -> None: ...


def raw_arrays(arrays: Mapping[str, mx.array]) -> list[RawArray]:
    """Views of the arrays' bytes; each keeps its array's memory alive."""
    flat = {name: _flat_bytes(array) for name, array in arrays.items()}
    mx.eval(*flat.values())
    return [
        # MLX's type stubs leave the buffer protocol out.
        RawArray(name, _NAMES[array.dtype], tuple(array.shape), memoryview(flat[name]))  # type: ignore[arg-type]
        for name, array in arrays.items()
    ]


def _flat_bytes(array: mx.array) -> mx.array:
    if not array.size:
        return mx.zeros((0,), mx.uint8, stream=mx.cpu)
    # On the CPU, where these two only rename the memory.
    return mx.view(mx.reshape(array, (-1,), stream=mx.cpu), mx.uint8, stream=mx.cpu)


def filled_arrays(headers: list[ArrayHeader], fill: Fill) -> dict[str, mx.array]:
    """The arrays that the headers describe, evaluated; each one's bytes are what `fill` gave.

    Raises:
        Exception: the first that `fill` raised.
    """
    blocks = _FlatBlocks([header for header in headers if header.nbytes], fill)
    loaded = blocks.load()
    arrays = {header.name: _typed(loaded.get(header.name), header) for header in headers}
    mx.eval(*arrays.values())
    if blocks.failure is not None:
        raise blocks.failure
    return arrays


def _typed(block: mx.array | None, header: ArrayHeader) -> mx.array:
    dtype = _DTYPES[header.dtype]
    if block is None:
        return mx.zeros(header.shape, dtype, stream=mx.cpu)
    return mx.reshape(mx.view(block, dtype, stream=mx.cpu), header.shape, stream=mx.cpu)


class _FlatBlocks:
    """A file object that looks like a safetensors file of one-dimensional byte arrays.

    MLX seeks and reads from several threads, so each has a position of its own. An exception must
    not pass through MLX, which would end the process: it is kept, and the read looks complete.
    """

    closed = False

    def __init__(self, headers: list[ArrayHeader], fill: Fill) -> None:
        self.failure: Exception | None = None
        self._fill = fill
        self._headers = headers
        ends = list(itertools.accumulate((header.nbytes for header in headers), initial=0))
        entries = {
            str(number): {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
            for number, (begin, end) in enumerate(itertools.pairwise(ends))
        }
        text = json.dumps(entries).encode()
        self._head = struct.pack("<Q", len(text)) + text
        self._size = len(self._head) + ends[-1]
        self._at = {len(self._head) + begin: header for begin, header in zip(ends, headers)}  # noqa: B905 - one end more
        self._thread = threading.local()

    def load(self) -> dict[str, mx.array]:
        """The blocks by array name; read when they are evaluated."""
        if not self._headers:
            return {}
        load = cast(Callable[..., dict[str, mx.array]], mx.load)
        blocks = load(self, format="safetensors", stream=mx.cpu)
        return {header.name: blocks[str(number)] for number, header in enumerate(self._headers)}

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self.tell(), self._size)[whence]
        self._thread.position = base + offset
        return base + offset

    def tell(self) -> int:
        return getattr(self._thread, "position", 0)

    def read(self, _size: int = -1) -> bytes:
        raise NotImplementedError("MLX reads into its own memory")

    def readinto(self, memory: memoryview) -> int:
        begin = self.tell()
        self._thread.position = begin + len(memory)
        if begin < len(self._head):
            memory[:] = self._head[begin : begin + len(memory)]
            return len(memory)
        try:
            header = self._at[begin]
            if header.nbytes != len(memory):
                raise RuntimeError(f"MLX asks for {len(memory)} of {header.nbytes} bytes")
            self._fill(header, memoryview(memory))
        except Exception as error:  # noqa: BLE001 - see the class
            self.failure = error
        return len(memory)
