"""Reading a record: every byte is verified before anything is returned.

`mx.load` is given a file object that verifies what it reads: its arrays are the only ones that MLX
neither copies into place nor clears first. MLX reads one array at a time. The chunks of an array
are read and checksummed by several threads, since a read from the page cache keeps a processor
busy, and both steps release Python's lock.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from xxhash import xxh3_64

import mlx.core as mx
from anyclaude.mlx.kv_disk.record import (
    CHUNK_BYTES,
    LENGTH,
    CorruptRecordError,
    Head,
    Tensor,
    chunks,
    decode_head,
    parts,
)

# Enough for the header of a short segment.
_FIRST_READ_BYTES: Final = 16 * 1024
# Fits the processor's second cache.
_PART_BYTES: Final = 512 * 1024
# More threads gain nothing: memory is then the limit.
_READERS: Final = min(4, os.cpu_count() or 1)


class OpenRecord:
    """A record in a file, with its verified header."""

    def __init__(self, descriptor: int, at: int, nbytes: int, max_head_bytes: int) -> None:
        """Reads the header of the record in the `nbytes` bytes from `at`.

        Raises:
            OSError: the file cannot be read.
            UnsupportedRecordError: the record has another format version.
            CorruptRecordError: it is not a whole record.
        """
        self._descriptor = descriptor
        self.head: Head = decode_head(_read_head(descriptor, at, nbytes, max_head_bytes))
        self._data_at = at + len(self.head.raw)
        if nbytes != len(self.head.raw) + self.head.data_bytes:
            raise CorruptRecordError("its size is not what its header says")

    def verify(self, tensors: list[Tensor]) -> None:
        """Reads and verifies every byte of the data, on any thread.

        Raises:
            CorruptRecordError: a byte is not what was written.
        """
        memory = memoryview(bytearray(CHUNK_BYTES))
        for tensor in tensors:
            for number in range(len(tensor.checksums)):
                left = tensor.nbytes - number * CHUNK_BYTES
                self.read_chunk(tensor, number, memory[: min(left, CHUNK_BYTES)])

    def arrays(self) -> dict[str, mx.array]:
        """All arrays, verified and evaluated. MLX thread only.

        Raises:
            CorruptRecordError: a byte is not what was written.
        """
        tensors = self.head.tensors()
        load = cast(Callable[..., dict[str, mx.array]], mx.load)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="kv-read") as readers:
            file = _VerifiedFile(self, tensors, readers)
            arrays = load(file, format="safetensors", stream=mx.cpu)
            mx.eval(*arrays.values())
        if file.failure is not None:
            raise file.failure
        doubles = [tensor.name for tensor in tensors if tensor.dtype == "F64"]
        return arrays | {name: arrays[name].view(mx.float64, stream=mx.cpu) for name in doubles}

    def read_chunk(self, tensor: Tensor, number: int, chunk: memoryview) -> None:
        """Reads one chunk, and checksums each part while it is in the processor's cache."""
        at = self._data_at + tensor.offset + number * CHUNK_BYTES
        digest = xxh3_64()
        for part in parts(chunk, _PART_BYTES):
            self._read(part, at)
            digest.update(part)
            at += len(part)
        if digest.hexdigest() != tensor.checksums[number]:
            raise CorruptRecordError(
                f"the checksum of array {tensor.name}, chunk {number}, differs"
            )

    def _read(self, memory: memoryview, at: int) -> None:
        while memory:
            got = os.preadv(self._descriptor, [memory], at)
            if not got:
                raise CorruptRecordError("it became shorter")
            memory, at = memory[got:], at + got


class _VerifiedFile:
    """The record as the file object that `mx.load` reads.

    MLX seeks and reads on several threads, so each has its own position. An exception that passed
    through MLX would end the process, so it is stored and the read looks complete.
    """

    closed = False

    def __init__(
        self, record: OpenRecord, tensors: list[Tensor], readers: ThreadPoolExecutor
    ) -> None:
        self.failure: Exception | None = None
        self._record = record
        self._readers = readers
        # `mx.load` cannot read doubles, but it can read their bits as integers.
        self._head = record.head.raw.replace(b'"dtype":"F64"', b'"dtype":"U64"')
        self._size = len(self._head) + record.head.data_bytes
        self._at = {len(self._head) + tensor.offset: tensor for tensor in tensors if tensor.nbytes}
        self._thread = threading.local()

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
        try:
            if begin < len(self._head):
                memory[:] = self._head[begin : begin + len(memory)]
            elif memory:
                self._fill(self._at[begin], memory)
        except Exception as error:  # noqa: BLE001 - see the class
            self.failure = error
        return len(memory)

    def _fill(self, tensor: Tensor, memory: memoryview) -> None:
        if tensor.nbytes != len(memory):
            raise RuntimeError(f"MLX asks for {len(memory)} of {tensor.nbytes} bytes")
        reads = [
            self._readers.submit(self._record.read_chunk, tensor, number, chunk)
            for number, chunk in enumerate(chunks(memoryview(memory)))
        ]
        # Even if one read fails, `memory` must exist until all have ended.
        wait(reads)
        for read in reads:
            read.result()


@contextmanager
def opened(path: Path) -> Iterator[OpenRecord]:
    """Opens a record and verifies its header; raises what `OpenRecord` raises."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        nbytes = os.fstat(descriptor).st_size
        yield OpenRecord(descriptor, 0, nbytes, max_head_bytes=nbytes)
    finally:
        os.close(descriptor)


def _read_head(descriptor: int, at: int, nbytes: int, max_head_bytes: int) -> bytes:
    raw = os.pread(descriptor, min(_FIRST_READ_BYTES, nbytes), at)
    if len(raw) < LENGTH.size:
        raise CorruptRecordError("it is shorter than the length of a header")
    head_bytes = LENGTH.size + LENGTH.unpack_from(raw)[0]
    if head_bytes > nbytes:
        raise CorruptRecordError("it is shorter than its header says")
    if head_bytes > max_head_bytes:
        raise CorruptRecordError(f"its header takes {head_bytes} bytes")
    if head_bytes > len(raw):
        raw += os.pread(descriptor, head_bytes - len(raw), at + len(raw))
    return raw[:head_bytes]
