"""Export files changed on purpose, with checksums that match, as a forger could write them."""

import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from anyclaude.mlx.kv_disk import record
from anyclaude.mlx.kv_disk.export_file import MANIFEST, MANIFEST_SEAL, member_header, padding_bytes
from anyclaude.mlx.kv_disk.import_file import ReadBounds
from anyclaude.mlx.kv_disk.records import record_id
from anyclaude.mlx.tokens import token_array

RECORD_SEAL = record.Seal('{"__metadata__":', "anyclaude-kv", record.FORMAT_VERSION)


@dataclass
class ForgedRecord:
    """A record's header as it is in the file, and its data."""

    header: dict[str, Any]
    data: bytes

    @property
    def metadata(self) -> dict[str, str]:
        metadata: dict[str, str] = self.header["__metadata__"]
        return metadata

    @property
    def arrays(self) -> dict[str, dict[str, Any]]:
        return {name: entry for name, entry in self.header.items() if name != "__metadata__"}

    @classmethod
    def read(cls, raw: bytes) -> "ForgedRecord":
        (length,) = record.LENGTH.unpack_from(raw)
        return cls(json.loads(raw[8 : 8 + length]), raw[8 + length :])

    def to_bytes(self) -> bytes:
        text = json.dumps(self.header, separators=(",", ":")).encode()
        text = text.ljust(-(-len(text) // 8) * 8)
        return record.LENGTH.pack(len(text)) + RECORD_SEAL.close(text) + self.data


@dataclass
class Member:
    """A member of the tar file; fields that are set are written in place of the true ones."""

    name: str
    content: bytes
    mode: int = 0o600
    mtime: int = 0
    nbytes: int | None = None
    header: bytes | None = None

    def to_bytes(self) -> bytes:
        nbytes = len(self.content) if self.nbytes is None else self.nbytes
        header = self.header or member_header(self.name, nbytes, self.mode, self.mtime)
        return header + self.content + bytes(padding_bytes(len(self.content)))


@dataclass
class Forged:
    """The parts of a file; `write` joins them again."""

    header: dict[str, Any]
    records: list[ForgedRecord]
    # Changed after the members are built.
    change: Callable[[list[Member]], None] = list
    tail: bytes = b""
    _times: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Forged":
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            contents = [tar.extractfile(member).read() for member in members]  # type: ignore[union-attr]
        records = [ForgedRecord.read(content) for content in contents[1:]]
        return cls(json.loads(contents[0]), records, _times=[m.mtime for m in members])

    def write(self, path: Path) -> None:
        text = json.dumps(self.header, separators=(",", ":")).encode()
        members = [Member(MANIFEST, MANIFEST_SEAL.close(text), mtime=self._times[0])]
        for record_, mtime in zip(self.records, self._times[1:] * 2, strict=False):
            name = f"{record_.metadata['record_id']}.safetensors"
            members.append(Member(name, record_.to_bytes(), mtime=mtime))
        self.change(members)
        path.write_bytes(b"".join(m.to_bytes() for m in members) + bytes(1024) + self.tail)


Forgery = Callable[[Forged], None]


def tokens_of(forged: ForgedRecord) -> list[int]:
    return record.tokens_from_text(forged.metadata["tokens"]).tolist()


def retold(forged: ForgedRecord, ids: list[int]) -> None:
    forged.metadata["tokens"] = record.tokens_to_text(token_array(ids))


def renamed(forged: ForgedRecord, above: list[int], ids: list[int]) -> None:
    """The forged record with other tokens, under the name that belongs to them."""
    retold(forged, ids)
    forged.metadata["record_id"] = record_id(np.array([*above, *ids], np.int32))


def relabelled(forged: ForgedRecord, **changes: Any) -> None:
    forged.metadata["kind"] = json.dumps(json.loads(forged.metadata["kind"]) | changes)


def redescribed(forged: ForgedRecord, change: Callable[[Any], None]) -> None:
    meta = json.loads(forged.metadata["meta"])
    change(meta)
    forged.metadata["meta"] = json.dumps(meta)


BOUNDS = replace(ReadBounds(), segments=64)
