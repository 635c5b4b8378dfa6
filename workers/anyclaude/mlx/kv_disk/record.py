"""The record format: one segment as an ordinary safetensors file.

    8 bytes  the header's length, little-endian
    header   JSON: `__metadata__`, then dtype, shape and place of each tensor; padded with spaces
    data     the tensors' bytes, one after another

`__metadata__` begins with the format's name and a checksum of the rest of the header. It also holds
the checksums of the data, one for each chunk of each tensor, so every byte of the file is verified.
A header has one spelling only, so MLX's parser and ours cannot understand it differently. Checksums
are xxh3_64: they find accidents, not forgeries.
"""

import base64
import json
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from xxhash import xxh3_64_hexdigest

import mlx.core as mx
from anyclaude.mlx.kv_disk.values import RecordInfo
from anyclaude.mlx.tokens import TokenArray

FORMAT_VERSION: Final = 2
CHUNK_BYTES: Final = 4 * 1024 * 1024
LENGTH: Final = struct.Struct("<Q")
_ALIGNMENT: Final = 8
_DIGEST_DIGITS: Final = 16
_METADATA: Final = '{"__metadata__":'
_FIELDS: Final = (
    "format",
    "checksum",
    "fingerprint",
    "record_id",
    "parent_id",
    "start",
    "created",
    "kind",
    "session_id",
    "meta",
    "data_bytes",
    "data_checksums",
    "tokens",
)

# MLX's types by their safetensors names.
DTYPES: Final = {
    "BOOL": mx.bool_,
    "U8": mx.uint8,
    "I8": mx.int8,
    "U16": mx.uint16,
    "I16": mx.int16,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "U32": mx.uint32,
    "I32": mx.int32,
    "F32": mx.float32,
    "U64": mx.uint64,
    "I64": mx.int64,
    "F64": mx.float64,
    "C64": mx.complex64,
}


class CorruptRecordError(Exception):
    """The file is not, byte for byte, the record that was written."""


class UnsupportedRecordError(Exception):
    """The file is a record of a format version that this build does not read."""


@dataclass(frozen=True)
class Seal:
    """JSON text that begins with its format and a checksum of everything after that checksum."""

    opening: str
    name: str
    version: int

    @property
    def fields(self) -> dict[str, str]:
        """The first two fields of the JSON object; `close` fills in the checksum."""
        return {"format": f"{self.name}-{self.version}", "checksum": "0" * _DIGEST_DIGITS}

    def close(self, text: bytes) -> bytes:
        begin = len(self._prefix)
        rest = text[begin + _DIGEST_DIGITS :]
        return text[:begin] + _digest(rest) + rest

    def check(self, text: bytes) -> None:
        """Verifies the checksum.

        Raises:
            UnsupportedRecordError: the text has another format version.
            CorruptRecordError: the text differs from what was written.
        """
        prefix = self._prefix
        if not text.startswith(prefix):
            pattern = re.escape(f'{self.opening}{{"format":"{self.name}-') + "([0-9]{1,9})"
            other = re.match(pattern.encode(), text)
            if other is None or int(other[1]) == self.version:
                raise CorruptRecordError("it does not begin as one")
            raise UnsupportedRecordError(
                f"it has format {int(other[1])} and this version reads {self.version}"
            )
        rest = len(prefix) + _DIGEST_DIGITS
        if text[len(prefix) : rest] != _digest(text[rest:]):
            raise CorruptRecordError("the header's checksum differs")

    @property
    def _prefix(self) -> bytes:
        name = f"{self.name}-{self.version}"
        return f'{self.opening}{{"format":"{name}","checksum":"'.encode()


_SEAL: Final = Seal(_METADATA, "anyclaude-kv", FORMAT_VERSION)


@dataclass(frozen=True)
class RawArray:
    """An array as bytes: `data` is a flat view of unsigned bytes, not a copy."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview


class Tensor(NamedTuple):
    """An array as the header describes it. `offset` counts from the start of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    checksums: Sequence[str]


@dataclass(frozen=True)
class Head:
    """The verified start of a record: `raw` is the length and the header."""

    raw: bytes
    metadata: dict[str, str] = field(repr=False)

    @property
    def data_bytes(self) -> int:
        return int(self.metadata["data_bytes"])

    @property
    def meta(self) -> str:
        return self.metadata["meta"]

    def info(self, nbytes: int = 0, last_use: float = 0.0, pinned: bool = False) -> RecordInfo:
        """Raises CorruptRecordError if a field does not parse."""
        metadata = self.metadata
        try:
            return RecordInfo(
                fingerprint=metadata["fingerprint"],
                record_id=metadata["record_id"],
                parent_id=metadata["parent_id"],
                start=int(metadata["start"]),
                token_ids=tokens_from_text(metadata["tokens"]),
                kind=metadata["kind"],
                session_id=metadata["session_id"],
                created=float(metadata["created"]),
                last_use=last_use,
                pinned=pinned,
                nbytes=nbytes,
            )
        except ValueError as error:
            raise CorruptRecordError(f"its metadata does not parse: {error}") from error

    def tensors(self) -> list[Tensor]:
        """Raises CorruptRecordError if the header is not one that this build writes."""
        try:
            table = json.loads(self.raw[LENGTH.size :])
            if _json(table) != self.raw[LENGTH.size :].rstrip(b" "):
                raise CorruptRecordError("its header is spelled in another way")
            del table["__metadata__"]
            return self._placed(table)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CorruptRecordError(f"its header does not parse: {error!r}") from error

    def _placed(self, table: dict[str, Any]) -> list[Tensor]:
        digests = self.metadata["data_checksums"]
        checksums = [digests[at : at + _DIGEST_DIGITS] for at in _steps(digests, _DIGEST_DIGITS)]
        tensors, offset, first = [], 0, 0
        for name, entry in table.items():
            dtype, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
            numbers = [*shape, *place]
            if type(shape) is not list or any(type(n) is not int or n < 0 for n in numbers):
                raise CorruptRecordError(f"array {name} has no size")
            nbytes = math.prod(shape) * DTYPES[dtype].size
            if place != [offset, offset + nbytes] or len(entry) != 3:
                raise CorruptRecordError(f"array {name} is out of place")
            last = first + -(-nbytes // CHUNK_BYTES)
            tensor = Tensor(name, dtype, tuple(shape), offset, nbytes, checksums[first:last])
            tensors.append(tensor)
            offset, first = offset + nbytes, last
        if (offset, first) != (self.data_bytes, len(checksums)):
            raise CorruptRecordError("its arrays are not those that were checksummed")
        return tensors


def encode(info: RecordInfo, meta: str, arrays: Sequence[RawArray]) -> list[bytes | memoryview]:
    """The bytes of a record in parts: the length and the header, then the arrays' chunks."""
    table, offset = {}, 0
    for array in arrays:
        end = offset + len(array.data)
        place = {"dtype": array.dtype, "shape": array.shape, "data_offsets": [offset, end]}
        table[array.name], offset = place, end
    data = [chunk for array in arrays for chunk in chunks(array.data)]
    metadata = {
        **_SEAL.fields,
        "fingerprint": info.fingerprint,
        "record_id": info.record_id,
        "parent_id": info.parent_id,
        "start": str(info.start),
        "created": repr(info.created),
        "kind": info.kind,
        "session_id": info.session_id,
        "meta": meta,
        "data_bytes": str(offset),
        "data_checksums": "".join(map(xxh3_64_hexdigest, data)),
        "tokens": tokens_to_text(info.token_ids),
    }
    text = _json({"__metadata__": metadata, **table})
    text = text.ljust(-(-len(text) // _ALIGNMENT) * _ALIGNMENT)
    return [LENGTH.pack(len(text)) + _SEAL.close(text), *data]


def decode_head(raw: bytes) -> Head:
    """Verifies the length and the header, and parses the metadata.

    Raises:
        UnsupportedRecordError: it is a record of another format version.
        CorruptRecordError: it is not a record, or not as it was written.
    """
    text = raw[LENGTH.size :]
    _SEAL.check(text)
    try:
        metadata, _ = json.JSONDecoder().raw_decode(str(text, "ascii"), len(_METADATA))
    except (ValueError, RecursionError) as error:
        raise CorruptRecordError(f"its metadata does not parse: {error}") from error
    if tuple(metadata) != _FIELDS or not all(isinstance(v, str) for v in metadata.values()):
        raise CorruptRecordError("its metadata has other fields")
    if not re.fullmatch("[0-9]{1,18}", metadata["data_bytes"]):
        raise CorruptRecordError("its data has no size")
    return Head(raw, metadata)


def tokens_to_text(token_ids: TokenArray) -> str:
    """Little-endian int32 in base64."""
    return base64.b64encode(token_ids.astype("<i4", copy=False).tobytes()).decode()


def tokens_from_text(text: str) -> TokenArray:
    """Raises ValueError if `text` is not what `tokens_to_text` returns."""
    ids = np.frombuffer(base64.b64decode(text, validate=True), dtype="<i4").astype(np.int32)
    ids.flags.writeable = False
    return ids


def parts(data: memoryview, size: int) -> list[memoryview]:
    return [data[at : at + size] for at in _steps(data, size)]


def chunks(data: memoryview) -> list[memoryview]:
    return parts(data, CHUNK_BYTES)


def _steps(data: Sequence[Any] | memoryview, size: int) -> range:
    return range(0, len(data), size)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _digest(data: bytes) -> bytes:
    return xxh3_64_hexdigest(data).encode()
