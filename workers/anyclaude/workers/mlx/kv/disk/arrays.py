"""MLX arrays as bytes and back, without copies. MLX thread only.

Reading: memory is allocated as an MLX array and filled through its buffer, then viewed as the type
that the record names, so that a record is in memory once.
"""

from collections.abc import Mapping
from typing import Final

import mlx.core as mx

from anyclaude.workers.mlx.kv.disk.record import ITEM_BYTES, ArrayHeader, RawArray

_DTYPES: Final = {name: getattr(mx, "bool_" if name == "bool" else name) for name in ITEM_BYTES}
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}


def raw_arrays(arrays: Mapping[str, mx.array]) -> list[RawArray]:
    """Views of the arrays' bytes; each keeps its array's memory alive."""
    flat = {name: _flat_bytes(array) for name, array in arrays.items()}
    mx.eval(*flat.values())
    return [
        RawArray(name, _NAMES[array.dtype], tuple(array.shape), _buffer(flat[name]))
        for name, array in arrays.items()
    ]


def _flat_bytes(array: mx.array) -> mx.array:
    if not array.size:
        return mx.empty((0,), mx.uint8, stream=mx.cpu)
    # On the CPU, where these two only rename the memory.
    return mx.view(mx.reshape(array, (-1,), stream=mx.cpu), mx.uint8, stream=mx.cpu)


def allocate(header: ArrayHeader) -> tuple[mx.array, memoryview]:
    """Uninitialised memory for one array, and the writable view of its bytes."""
    # The CPU stream's allocator gives memory that the processor may write, on every backend.
    block = mx.empty((header.nbytes,), mx.uint8, stream=mx.cpu)
    mx.eval(block)
    view = _buffer(block)
    assert not view.readonly
    return block, view


def _buffer(array: mx.array) -> memoryview:
    # MLX's type stubs leave the buffer protocol out.
    return memoryview(array)  # type: ignore[arg-type]


def typed(block: mx.array, header: ArrayHeader) -> mx.array:
    """The filled memory as the array it is; lazy until evaluated."""
    dtype = _DTYPES[header.dtype]
    if not header.nbytes:
        return mx.zeros(header.shape, dtype, stream=mx.cpu)
    return mx.reshape(mx.view(block, dtype, stream=mx.cpu), header.shape, stream=mx.cpu)
