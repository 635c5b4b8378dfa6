"""Reading a record: nothing leaves here that was not verified to the last byte.

MLX calls back for each array's bytes, one array at a time. Its chunks are read and summed by
several threads: a read from the page cache keeps a processor busy, and both reading and summing
leave Python's lock to others.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from xxhash import xxh3_64

import mlx.core as mx
from anyclaude.mlx.kv_disk.arrays import filled_arrays
from anyclaude.mlx.kv_disk.record import (
    CHUNK_BYTES,
    PREAMBLE_BYTES,
    ArrayHeader,
    DoubtfulRecordError,
    Header,
    Preamble,
    chunks,
    decode_header,
    decode_preamble,
    parts,
)

# Fits the processor's second cache.
PART_BYTES = 512 * 1024
# More gain nothing: memory is then the limit.
READERS = min(4, os.cpu_count() or 1)


class OpenRecord:
    """A record in a file, with its verified header."""

    def __init__(self, descriptor: int, at: int, nbytes: int, max_header_bytes: int) -> None:
        """Reads the header of the record that takes `nbytes` from `at`."""
        self._descriptor = descriptor
        raw = os.pread(descriptor, PREAMBLE_BYTES, at)
        preamble: Preamble = decode_preamble(raw, nbytes)
        if preamble.header_bytes > max_header_bytes:
            raise DoubtfulRecordError(f"its header takes {preamble.header_bytes} bytes")
        text = os.pread(descriptor, preamble.header_bytes, at + PREAMBLE_BYTES)
        self.header: Header = decode_header(raw, text, preamble.check)
        self.header_bytes = preamble.header_bytes
        self._data_offset = at + preamble.data_offset
        if nbytes != preamble.data_offset + self.header.data_bytes:
            raise DoubtfulRecordError("its size is not what its header says")

    def verify(self) -> None:
        """Reads every byte and keeps none; any thread may.

        Raises:
            DoubtfulRecordError: a byte is not what was written.
        """
        self._check_padding()
        memory = memoryview(bytearray(CHUNK_BYTES))
        for header in self.header.arrays:
            for number in range(len(header.checks)):
                left = header.nbytes - number * CHUNK_BYTES
                self._read_chunk(header, number, memory[: min(left, CHUNK_BYTES)])

    def arrays(self) -> dict[str, mx.array]:
        """All arrays, verified and evaluated.

        Raises:
            DoubtfulRecordError: a byte is not what was written.
        """
        self._check_padding()
        with ThreadPoolExecutor(READERS, thread_name_prefix="kv-read") as readers:

            def fill(header: ArrayHeader, memory: memoryview) -> None:
                reads = [
                    readers.submit(self._read_chunk, header, number, chunk)
                    for number, chunk in enumerate(chunks(memory))
                ]
                # Whatever one meets, `memory` must stay until all have ended.
                wait(reads)
                for read in reads:
                    read.result()

            return filled_arrays(self.header.arrays, fill)

    def _read_chunk(self, header: ArrayHeader, number: int, chunk: memoryview) -> None:
        """Reads one chunk, summing each part while the processor still has it at hand."""
        at = self._data_offset + header.offset + number * CHUNK_BYTES
        digest = xxh3_64()
        for part in parts(chunk, PART_BYTES):
            self._read(part, at)
            digest.update(part)
            at += len(part)
        if digest.intdigest() != header.checks[number]:
            raise DoubtfulRecordError(
                f"the checksum of array {header.name}, chunk {number}, differs"
            )

    def _read(self, memory: memoryview, at: int) -> None:
        while memory:
            got = os.preadv(self._descriptor, [memory], at)
            if not got:
                raise DoubtfulRecordError("it became shorter")
            memory, at = memory[got:], at + got

    def _check_padding(self) -> None:
        end = 0
        for header in self.header.arrays:
            if header.offset > end:
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
        nbytes = os.fstat(descriptor).st_size
        yield OpenRecord(descriptor, 0, nbytes, max_header_bytes=nbytes)
    finally:
        os.close(descriptor)


def read_header(path: Path) -> Header:
    """As `opened`, the header alone."""
    with opened(path) as record:
        return record.header
