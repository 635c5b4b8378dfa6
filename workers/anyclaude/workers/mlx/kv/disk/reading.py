"""Reading a record: nothing leaves here that was not verified to the last byte.

Chunks are read and summed by a few threads that see bytes only; MLX is touched by the caller's
thread alone.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Executor, wait
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
from xxhash import xxh3_64_intdigest

from anyclaude.workers.mlx.kv.disk.arrays import allocate, typed
from anyclaude.workers.mlx.kv.disk.record import (
    PREAMBLE_BYTES,
    ArrayHeader,
    DoubtfulRecordError,
    Header,
    Preamble,
    chunks,
    decode_header,
    decode_preamble,
)


class OpenRecord:
    """A record's file with its verified header."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        file_bytes = os.fstat(descriptor).st_size
        raw = os.pread(descriptor, PREAMBLE_BYTES, 0)
        preamble: Preamble = decode_preamble(raw, file_bytes)
        text = os.pread(descriptor, preamble.header_bytes, PREAMBLE_BYTES)
        self.header: Header = decode_header(raw, text, preamble.check)
        self._data_offset = preamble.data_offset
        if file_bytes != self._data_offset + self.header.data_bytes:
            raise DoubtfulRecordError("its size is not what its header says")

    def arrays(self, threads: Executor) -> dict[str, mx.array]:
        """All arrays, verified and evaluated.

        Raises:
            DoubtfulRecordError: a byte is not what was written.
        """
        self._check_padding()
        blocks: dict[str, tuple[ArrayHeader, mx.array]] = {}
        reads = []
        try:
            for header in self.header.arrays:
                block, view = allocate(header)
                blocks[header.name] = header, block
                at = self._data_offset + header.offset
                for chunk, check in zip(chunks(view), header.checks, strict=True):
                    reads.append(threads.submit(self._fill, chunk, at, check))
                    at += len(chunk)
                del view
        finally:
            wait(reads)
        for read in reads:
            read.result()
        del reads
        arrays = {name: typed(block, header) for name, (header, block) in blocks.items()}
        mx.eval(*arrays.values())
        return arrays

    def _fill(self, chunk: memoryview, at: int, check: int) -> None:
        done = 0
        while done < len(chunk):
            got = os.preadv(self._descriptor, [chunk[done:]], at + done)
            if not got:
                raise DoubtfulRecordError("it became shorter")
            done += got
        if xxh3_64_intdigest(chunk) != check:
            raise DoubtfulRecordError(f"the checksum differs within 4 MiB of byte {at}")

    def _check_padding(self) -> None:
        end = 0
        for header in self.header.arrays:
            gap = os.pread(self._descriptor, header.offset - end, self._data_offset + end)
            if gap.strip(b"\0"):
                raise DoubtfulRecordError("there is something between two arrays")
            end = header.offset + header.nbytes


@contextmanager
def opened(path: Path) -> Iterator[OpenRecord]:
    """Opens a record and verifies its header.

    Raises:
        OSError: the file cannot be opened or read.
        OtherVersionError: it has another format.
        DoubtfulRecordError: it is not a whole record.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield OpenRecord(descriptor)
    finally:
        os.close(descriptor)


def read_header(path: Path) -> Header:
    """As `opened`, the header alone."""
    with opened(path) as record:
        return record.header
