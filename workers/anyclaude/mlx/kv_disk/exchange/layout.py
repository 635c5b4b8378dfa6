"""The parts of an export file beside its records, and the bounds within which they are read."""

import struct
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from xxhash import xxh3_64_intdigest

FORMAT_VERSION: Final = 1
MAGIC: Final = b"ACKVEXP\n"
_FIXED: Final = struct.Struct("<8sII")
_CHECK: Final = struct.Struct("<Q")
HEAD_BYTES: Final = _FIXED.size + _CHECK.size
# A tag and, for a segment its bytes, for the end the number of segments.
FRAME: Final = struct.Struct("<8sQ")
SEGMENT_TAG: Final = b"SEGMENT\n"
END_TAG: Final = b"THE END\n"


@dataclass(frozen=True)
class ReadBounds:
    """What a file may ask of the memory of whoever reads it."""

    header_bytes: int = 16 * 1024 * 1024
    # Of one record: the token ids of 3,000,000 tokens.
    record_header_bytes: int = 16 * 1024 * 1024
    # Of all records, since they are held until the whole file is verified.
    all_headers_bytes: int = 512 * 1024 * 1024
    segments: int = 100_000


_Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{0,64}$")]
# Names are printed to terminals, so they may hold nothing that a terminal obeys.
_Name = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{0,256}$")]
_Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NamedTip(_Strict):
    """A conversation, and the record that it ends with. Times are epoch seconds."""

    session_id: _Name
    agent_id: _Name
    stable_digest: _Digest
    create_time: _Seconds
    last_use: _Seconds
    tip: _Digest


class ExportHeader(_Strict):
    fingerprint: _Digest
    # For people.
    model: str = Field(max_length=256)
    create_time: _Seconds
    lineages: list[NamedTip] = Field(max_length=100_000)


def encode_head(header: ExportHeader) -> bytes:
    text = header.model_dump_json().encode()
    fixed = _FIXED.pack(MAGIC, FORMAT_VERSION, len(text))
    return fixed + _CHECK.pack(xxh3_64_intdigest(fixed + text)) + text


def decode_head(raw: bytes) -> tuple[bytes, int, int]:
    """Magic, format version and header length of the first `HEAD_BYTES`."""
    magic, version, header_bytes = _FIXED.unpack_from(raw)
    return magic, version, header_bytes


def is_intact(raw: bytes, text: bytes) -> bool:
    """Whether head and header are what was written."""
    (check,) = _CHECK.unpack_from(raw, _FIXED.size)
    return bool(xxh3_64_intdigest(raw[: _FIXED.size] + text) == check)
