"""Export files changed on purpose, with checksums that fit: what a forger could write."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from anyclaude.mlx.kv_disk import record
from anyclaude.mlx.kv_disk.exchange import layout
from anyclaude.mlx.kv_disk.records import record_id
from anyclaude.mlx.tokens import token_array


class _Text(dict[str, Any]):
    """Stands in for a header that no model would let pass: the writers only ask for its JSON."""

    def model_dump_json(self) -> str:
        return json.dumps(self, separators=(",", ":"))


@dataclass
class Forged:
    """The parts of a file; `write` puts them together again."""

    header: dict[str, Any]
    records: list[dict[str, Any]]
    data: list[bytes]
    # Written in place of the truth.
    count: int | None = None
    lengths: dict[int, int] = field(default_factory=dict)
    tail: bytes = b""

    @classmethod
    def read(cls, path: Path) -> "Forged":
        raw = path.read_bytes()
        _, _, header_bytes = layout.decode_head(raw)
        at = layout.HEAD_BYTES + header_bytes
        forged = cls(json.loads(raw[layout.HEAD_BYTES : at]), [], [])
        while True:
            tag, number = layout.FRAME.unpack_from(raw, at)
            at += layout.FRAME.size
            if tag == layout.END_TAG:
                return forged
            preamble = record.decode_preamble(raw[at : at + record.PREAMBLE_BYTES], number)
            begin = at + record.PREAMBLE_BYTES
            forged.records.append(json.loads(raw[begin : begin + preamble.header_bytes]))
            forged.data.append(raw[at + preamble.data_offset : at + number])
            at += number

    def write(self, path: Path) -> None:
        out = [layout.encode_head(_Text(self.header))]  # type: ignore[arg-type]
        for number, (header, data) in enumerate(zip(self.records, self.data, strict=True)):
            whole = record.encode_header(_Text(header)) + data  # type: ignore[arg-type]
            length = self.lengths.get(number, len(whole))
            out += [layout.FRAME.pack(layout.SEGMENT_TAG, length), whole]
        count = len(self.records) if self.count is None else self.count
        out += [layout.FRAME.pack(layout.END_TAG, count), self.tail]
        path.write_bytes(b"".join(out))


Forgery = Callable[[Forged], None]


def tokens_of(header: dict[str, Any]) -> list[int]:
    return record.tokens_from_bytes(base64.b64decode(header["tokens"])).tolist()


def retold(header: dict[str, Any], ids: list[int]) -> None:
    header["tokens"] = record.tokens_to_text(token_array(ids))


def renamed(header: dict[str, Any], above: list[int], ids: list[int]) -> None:
    """Other tokens, under the name that is theirs."""
    retold(header, ids)
    header["record_id"] = record_id(np.array([*above, *ids], np.int32))


def relabelled(header: dict[str, Any], **changes: Any) -> None:
    header["kind"] = json.dumps(json.loads(header["kind"]) | changes)


def redescribed(header: dict[str, Any], change: Callable[[Any], None]) -> None:
    meta = json.loads(header["meta"])
    change(meta)
    header["meta"] = json.dumps(meta)


BOUNDS = replace(layout.ReadBounds(), segments=64)
