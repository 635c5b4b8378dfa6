"""Reading an export file: all of it is verified before any of it is used.

What is checked of each segment: its record's own checksums, that its name is the digest of all
token ids up to its end, that its parent came before it and ends where it starts, and that it fits
the model. So a file can neither put words under another prompt's name nor fail a later request.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

import mlx.core as mx
from anyclaude.mlx.kv_disk.exchange.faults import ExchangeError, Fault, damaged
from anyclaude.mlx.kv_disk.exchange.layout import (
    END_TAG,
    FORMAT_VERSION,
    FRAME,
    HEAD_BYTES,
    MAGIC,
    SEGMENT_TAG,
    ExportHeader,
    ReadBounds,
    decode_head,
    is_intact,
)
from anyclaude.mlx.kv_disk.exchange.mold import MisfitError, Mold
from anyclaude.mlx.kv_disk.reading import OpenRecord
from anyclaude.mlx.kv_disk.record import DoubtfulRecordError, Header, OtherVersionError
from anyclaude.mlx.kv_disk.records import Label
from anyclaude.mlx.tokens import TokenArray

if TYPE_CHECKING:
    from hashlib import _Hash

_BOUNDS = ReadBounds()


class _WrongError(Exception):
    """A segment is not what an export writes."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A verified segment of the file."""

    at: int
    nbytes: int
    record_id: str
    parent_id: str
    start: int
    token_ids: TokenArray
    is_main: bool
    stable_digest: str
    pinned: bool
    create_time: float
    meta: dict[str, Any]


@dataclass(frozen=True)
class Contents:
    header: ExportHeader
    # Parents before children.
    entries: list[Entry]


@contextmanager
def opened(path: Path, fingerprint: str, bounds: ReadBounds = _BOUNDS) -> "Iterator[ExportReader]":
    """Opens an export file for a worker whose caches are valid under `fingerprint`.

    Raises:
        ExchangeError: there is none, or it is not one for here.
    """
    try:
        # A pipe or a device would make an open wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = error.strerror or str(error)
        raise ExchangeError(Fault.MISSING, f"{path} cannot be read: {why}.") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise damaged(path, "it is not a plain file")
        yield ExportReader(path, descriptor, fingerprint, bounds)
    finally:
        os.close(descriptor)


class ExportReader:
    """One open file."""

    def __init__(self, path: Path, descriptor: int, fingerprint: str, bounds: ReadBounds) -> None:
        self._path = path
        self._descriptor = descriptor
        self._fingerprint = fingerprint
        self._bounds = bounds
        self.nbytes = os.fstat(descriptor).st_size
        self._header_bytes = 0

    def contents(self, mold: Mold) -> Contents:
        """Verifies the whole file; no MLX work, so any thread may.

        Raises:
            ExchangeError: it is damaged, or not for this model.
        """
        header, at = self._header()
        chain = _Chain()
        entries: list[Entry] = []
        while True:
            tag, number = self._frame(at)
            at += FRAME.size
            if tag == END_TAG:
                break
            entries.append(self._entry(at, number, chain, mold, len(entries)))
            at += number
        if number != len(entries):
            raise self._damaged(f"{number} segments were written and {len(entries)} are there")
        if at != self.nbytes:
            raise self._damaged("something follows its end")
        return Contents(header, entries)

    def arrays(self, entry: Entry) -> dict[str, mx.array]:
        """A segment's arrays, verified once more; MLX thread only.

        Raises:
            ExchangeError: the file has changed.
        """
        try:
            return self._record(entry.at, entry.nbytes).arrays()
        except (DoubtfulRecordError, OtherVersionError, OSError) as error:
            raise ExchangeError(
                Fault.DAMAGED,
                f"{self._path} changed while it was imported ({error}). What was imported before "
                "is sound and stays. Import it again once nothing writes to it.",
            ) from error

    def _header(self) -> tuple[ExportHeader, int]:
        raw = os.pread(self._descriptor, HEAD_BYTES, 0)
        if len(raw) < HEAD_BYTES or not raw.startswith(MAGIC):
            raise self._damaged("it does not begin as one")
        _, version, header_bytes = decode_head(raw)
        if version != FORMAT_VERSION:
            raise ExchangeError(
                Fault.REFUSED,
                f"{self._path} has export format {version} and this version reads "
                f"{FORMAT_VERSION}. Export it again with the version that runs here.",
            )
        if header_bytes > min(self._bounds.header_bytes, self.nbytes - HEAD_BYTES):
            raise self._damaged(f"its header takes {header_bytes} bytes")
        text = os.pread(self._descriptor, header_bytes, HEAD_BYTES)
        if not is_intact(raw, text):
            raise self._damaged("the header's checksum differs")
        try:
            header = ExportHeader.model_validate_json(text)
        except ValidationError as error:
            raise self._damaged(f"its header does not parse ({_first(error)})") from error
        self._check_model(header)
        return header, HEAD_BYTES + header_bytes

    def _check_model(self, header: ExportHeader) -> None:
        if header.fingerprint != self._fingerprint:
            raise ExchangeError(
                Fault.REFUSED,
                f"{self._path} holds caches of {header.model!a} under fingerprint "
                f"{header.fingerprint}; here it is {self._fingerprint}. Caches are valid for the "
                "same model, cache.kv_bits, versions of MLX and kind of device alone.",
            )

    def _frame(self, at: int) -> tuple[bytes, int]:
        raw = os.pread(self._descriptor, FRAME.size, at)
        if len(raw) < FRAME.size:
            raise self._damaged("it ends too early")
        tag, number = FRAME.unpack(raw)
        if tag not in (SEGMENT_TAG, END_TAG):
            raise self._damaged(f"no segment begins at byte {at}")
        return tag, number

    def _entry(self, at: int, nbytes: int, chain: "_Chain", mold: Mold, number: int) -> Entry:
        if number >= self._bounds.segments:
            raise self._damaged(f"it has more than {self._bounds.segments} segments")
        if nbytes > self.nbytes - at:
            raise self._damaged("it ends within a segment")
        try:
            record = self._record(at, nbytes)
            self._count(record)
            entry = _entry(record.header, at, nbytes, self._fingerprint)
            chain.add(entry)
            end = entry.start + len(entry.token_ids)
            mold.check(record.header.arrays, entry.meta, start=entry.start, end=end)
            record.verify()
        except (DoubtfulRecordError, OtherVersionError, MisfitError, _WrongError) as error:
            raise self._damaged(f"segment {number + 1}, at byte {at}: {error}") from error
        return entry

    def _record(self, at: int, nbytes: int) -> OpenRecord:
        return OpenRecord(self._descriptor, at, nbytes, self._bounds.record_header_bytes)

    def _count(self, record: OpenRecord) -> None:
        self._header_bytes += record.header_bytes
        if self._header_bytes > self._bounds.all_headers_bytes:
            raise _WrongError(f"headers take more than {self._bounds.all_headers_bytes} bytes")

    def _damaged(self, why: str) -> ExchangeError:
        return damaged(self._path, why)


class _Chain:
    """The segments so far: where each ends, and the digest of all token ids up to there."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[int, _Hash]] = {"": (0, hashlib.sha256())}

    def add(self, entry: Entry) -> None:
        if entry.record_id in self._ends:
            raise _WrongError(f"{entry.record_id} is there twice")
        if entry.parent_id not in self._ends:
            raise _WrongError("what it builds on is not there")
        end, digest = self._ends[entry.parent_id]
        if entry.start != end or not len(entry.token_ids) or (entry.token_ids < 0).any():
            raise _WrongError("its tokens do not follow those before it")
        digest = digest.copy()
        digest.update(entry.token_ids.astype("<i4").tobytes())
        name = digest.hexdigest()
        # As `record_id` and `token_digest` make them.
        if entry.record_id != name[:32] or entry.stable_digest not in ("", name[:12]):
            raise _WrongError("its name is not that of its tokens")
        self._ends[entry.record_id] = end + len(entry.token_ids), digest


def _entry(header: Header, at: int, nbytes: int, fingerprint: str) -> Entry:
    if header.fingerprint != fingerprint:
        raise _WrongError("it is of another model than the file")
    try:
        label, meta = Label.from_text(header.kind), json.loads(header.meta)
    except (TypeError, ValueError, RecursionError) as error:
        raise _WrongError("what describes it does not parse") from error
    flags = label.is_main, label.has_states
    if not isinstance(meta, dict) or not all(isinstance(flag, bool) for flag in flags):
        raise _WrongError("what describes it does not parse")
    if not 0 <= header.created <= 1e11:
        raise _WrongError("its time is none")
    return Entry(
        at=at,
        nbytes=nbytes,
        record_id=header.record_id,
        parent_id=header.parent_id,
        start=header.start,
        token_ids=header.token_ids,
        is_main=label.is_main,
        stable_digest=label.stable_digest,
        pinned=header.pinned,
        create_time=header.created,
        meta=meta,
    )


def _first(error: ValidationError) -> str:
    """Where it fails, without what it holds."""
    detail = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
