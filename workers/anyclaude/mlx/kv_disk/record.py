"""The record format: what one segment looks like as a file.

    preamble  magic, format version, header length, checksum of all three and the header
    header    JSON, padded with spaces so that the data starts on a 4 KiB boundary
    data      the arrays' bytes, each on a 64-byte boundary, zeros between, a checksum per chunk

Every byte of the file is covered: by the preamble's checksum, by a chunk's, or by having to be
zero. Checksums are xxh3_64: against accidents, not against forgers, who could write here anyway.
"""

import base64
import math
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from xxhash import xxh3_64_intdigest

from anyclaude.mlx.tokens import TokenArray

FORMAT_VERSION: Final = 1
CHUNK_BYTES: Final = 4 * 1024 * 1024
DATA_ALIGNMENT: Final = 4096
ARRAY_ALIGNMENT: Final = 64
_MAGIC: Final = b"ACKVREC\n"
_FIXED: Final = struct.Struct("<8sIIQ")
_CHECK: Final = struct.Struct("<Q")
PREAMBLE_BYTES: Final = _FIXED.size + _CHECK.size

ITEM_BYTES: Final = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "uint16": 2,
    "int16": 2,
    "float16": 2,
    "bfloat16": 2,
    "uint32": 4,
    "int32": 4,
    "float32": 4,
    "uint64": 8,
    "int64": 8,
    "float64": 8,
    "complex64": 8,
}


class DoubtfulRecordError(Exception):
    """The file is not, byte for byte, the record that it should be."""


class OtherVersionError(Exception):
    """The file is a record of another format version."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ArrayHeader(_Strict):
    name: str
    dtype: str
    shape: list[int]
    # From the start of the data.
    offset: int
    checks: list[int]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


class Header(_Strict):
    fingerprint: str
    record_id: str
    parent_id: str
    start: int = Field(ge=0)
    # Little-endian int32, in base64.
    tokens: str
    kind: str
    session_id: str
    pinned: bool
    created: float
    # JSON text, so that what comes back is what was given, to the bit.
    meta: str
    arrays: list[ArrayHeader]

    @property
    def token_ids(self) -> TokenArray:
        return tokens_from_bytes(base64.b64decode(self.tokens, validate=True))

    @property
    def data_bytes(self) -> int:
        if not self.arrays:
            return 0
        return self.arrays[-1].offset + self.arrays[-1].nbytes


@dataclass(frozen=True)
class Preamble:
    header_bytes: int
    check: int

    @property
    def data_offset(self) -> int:
        return PREAMBLE_BYTES + self.header_bytes


@dataclass(frozen=True)
class RawArray:
    """An array as bytes: `data` is a flat view of unsigned bytes that copies nothing."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def tokens_to_bytes(token_ids: TokenArray) -> bytes:
    return token_ids.astype("<i4", copy=False).tobytes()


def tokens_from_bytes(raw: bytes) -> TokenArray:
    ids = np.frombuffer(raw, dtype="<i4").astype(np.int32)
    ids.flags.writeable = False
    return ids


def tokens_to_text(token_ids: TokenArray) -> str:
    return base64.b64encode(tokens_to_bytes(token_ids)).decode()


def aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def parts(data: memoryview, size: int) -> list[memoryview]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def chunks(data: memoryview) -> list[memoryview]:
    return parts(data, CHUNK_BYTES)


def describe(arrays: list[RawArray]) -> list[ArrayHeader]:
    """Places the arrays one after another and sums their chunks."""
    described, offset = [], 0
    for array in arrays:
        checks = [xxh3_64_intdigest(chunk) for chunk in chunks(array.data)]
        header = ArrayHeader(
            name=array.name,
            dtype=array.dtype,
            shape=list(array.shape),
            offset=offset,
            checks=checks,
        )
        described.append(header)
        offset = aligned(offset + len(array.data), ARRAY_ALIGNMENT)
    return described


def encode_header(header: Header) -> bytes:
    """Preamble and header, as they stand at the start of the file."""
    text = header.model_dump_json().encode()
    length = aligned(PREAMBLE_BYTES + len(text), DATA_ALIGNMENT) - PREAMBLE_BYTES
    text = text.ljust(length)
    fixed = _FIXED.pack(_MAGIC, FORMAT_VERSION, 0, length)
    return fixed + _CHECK.pack(xxh3_64_intdigest(fixed + text)) + text


def decode_preamble(raw: bytes, file_bytes: int) -> Preamble:
    """Reads the first `PREAMBLE_BYTES` of a file of `file_bytes`.

    Raises:
        OtherVersionError: ours, of another format.
        DoubtfulRecordError: anything else that is wrong with it.
    """
    if len(raw) < PREAMBLE_BYTES:
        raise DoubtfulRecordError("shorter than a preamble")
    magic, version, _, header_bytes = _FIXED.unpack_from(raw)
    if magic != _MAGIC:
        raise DoubtfulRecordError("not a record")
    if version != FORMAT_VERSION:
        raise OtherVersionError(f"format version {version}, this build reads {FORMAT_VERSION}")
    if header_bytes > file_bytes - PREAMBLE_BYTES:
        raise DoubtfulRecordError("shorter than its header says")
    return Preamble(header_bytes, _CHECK.unpack_from(raw, _FIXED.size)[0])


def decode_header(preamble: bytes, text: bytes, check: int) -> Header:
    """Verifies and parses.

    Raises:
        DoubtfulRecordError: a checksum, a type or a place in the file is not what it must be.
    """
    if xxh3_64_intdigest(preamble[: _FIXED.size] + text) != check:
        raise DoubtfulRecordError("the header's checksum differs")
    try:
        header = Header.model_validate_json(text)
    except ValidationError as error:
        raise DoubtfulRecordError(f"the header does not parse: {error}") from error
    _check_layout(header)
    return header


def _check_layout(header: Header) -> None:
    offset = 0
    for array in header.arrays:
        if array.dtype not in ITEM_BYTES or any(side < 0 for side in array.shape):
            raise DoubtfulRecordError(f"array {array.name} has no size")
        if array.offset != offset:
            raise DoubtfulRecordError(f"array {array.name} is out of place")
        if len(array.checks) != -(-array.nbytes // CHUNK_BYTES):
            raise DoubtfulRecordError(f"array {array.name} lacks checksums")
        offset = aligned(offset + array.nbytes, ARRAY_ALIGNMENT)
    try:
        _ = header.token_ids
    except ValueError as error:
        raise DoubtfulRecordError("the token ids do not decode") from error
