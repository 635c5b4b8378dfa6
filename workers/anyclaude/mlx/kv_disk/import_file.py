"""Reading an export: all of it is verified before any of it is used.

For each segment these are checked: the checksums of its record; that its name is the digest of all
token ids up to its end; that its parent came before it and ends where it starts; and that it fits
the model. So a file can neither place other tokens under a prompt's name nor make a later request
fail. Checksums find accidents, not forgeries: a file that passes may still contain wrong numbers,
which `cache verify` finds.
"""

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

import mlx.core as mx
from anyclaude.mlx.kv_disk.export_file import (
    BLOCK_BYTES,
    END_BYTES,
    MANIFEST,
    MANIFEST_SEAL,
    ExchangeError,
    Fault,
    Manifest,
    member_header,
    padding_bytes,
)
from anyclaude.mlx.kv_disk.reading import OpenRecord
from anyclaude.mlx.kv_disk.record import CorruptRecordError, UnsupportedRecordError
from anyclaude.mlx.kv_disk.records import Label, SegmentShape
from anyclaude.mlx.kv_disk.values import RECORD_SUFFIX, RecordInfo
from anyclaude.mlx.kv_disk.writing import PINNED_MODE, UNPINNED_MODE

if TYPE_CHECKING:
    from hashlib import _Hash


@dataclass(frozen=True)
class ReadBounds:
    """How much memory reading a file may use."""

    manifest_bytes: int = 16 * 1024 * 1024
    # The header of one record: enough for 3,000,000 token ids.
    record_head_bytes: int = 16 * 1024 * 1024
    # The headers of all records, which stay in memory until the whole file is verified.
    all_heads_bytes: int = 512 * 1024 * 1024
    segments: int = 100_000


@dataclass(frozen=True, eq=False)
class Entry:
    """A verified segment of the file; its record is the `info.nbytes` bytes from `at`."""

    at: int
    info: RecordInfo
    label: Label
    meta: dict[str, Any]

    @property
    def end(self) -> int:
        return self.info.start + len(self.info.token_ids)


@dataclass(frozen=True)
class Contents:
    manifest: Manifest
    # Parents before children.
    entries: list[Entry]


@dataclass(frozen=True)
class _Member:
    name: str
    at: int
    nbytes: int
    mode: int


_BOUNDS: Final = ReadBounds()
# Exports of format 1 begin like this.
_OLD_MAGIC: Final = b"ACKVEXP\n"


@contextmanager
def opened(path: Path, fingerprint: str, bounds: ReadBounds = _BOUNDS) -> "Iterator[ExportReader]":
    """Opens an export file for a worker whose caches are valid under `fingerprint`.

    Raises:
        ExchangeError: it cannot be read, or is not for this worker.
    """
    try:
        # Opening a pipe or a device would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = error.strerror or str(error)
        raise ExchangeError(Fault.MISSING, f"{path} cannot be read: {why}.") from error
    try:
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
        status = os.fstat(descriptor)
        self.nbytes = status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise self._damaged("it is not a plain file")

    def contents(self, shape: SegmentShape) -> Contents:
        """Verifies the whole file. Does no MLX work, so any thread may call it.

        Raises:
            ExchangeError: it is damaged, or not for this model.
        """
        self._check_age()
        at, manifest, chain = 0, None, _Chain()
        entries: list[Entry] = []
        try:
            while (member := self._member(at)) is not None:
                at = member.at + member.nbytes + padding_bytes(member.nbytes)
                if manifest is None:
                    manifest = self._manifest(member)
                else:
                    entries.append(self._entry(member, chain, shape))
                if len(entries) > self._bounds.segments:
                    raise CorruptRecordError(f"it has more than {self._bounds.segments} segments")
            if manifest is None:
                raise CorruptRecordError("it has no manifest")
        except (CorruptRecordError, UnsupportedRecordError) as error:
            where = f"segment {len(entries) + 1}: " if manifest is not None else ""
            raise self._damaged(f"{where}{error}") from error
        return Contents(manifest, entries)

    def arrays(self, entry: Entry) -> dict[str, mx.array]:
        """A segment's arrays, verified once more; MLX thread only.

        Raises:
            ExchangeError: the file has changed.
        """
        try:
            return self._record(entry.at, entry.info.nbytes).arrays()
        except (CorruptRecordError, UnsupportedRecordError, OSError) as error:
            raise ExchangeError(
                Fault.DAMAGED,
                f"{self._path} changed while it was imported ({error}). What was imported before "
                "is sound and stays. Import it again once nothing writes to it.",
            ) from error

    def _check_age(self) -> None:
        if os.pread(self._descriptor, len(_OLD_MAGIC), 0) == _OLD_MAGIC:
            raise self._other_format("it has format 1")

    def _member(self, at: int) -> _Member | None:
        """The member that begins at `at`; None at the end of the file."""
        block = self._read(at, BLOCK_BYTES)
        if not any(block):
            if any(self._read(at, END_BYTES)) or at + END_BYTES != self.nbytes:
                raise CorruptRecordError("something follows its end")
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
            known = member_header(header.name, header.size, header.mode, int(header.mtime))
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise CorruptRecordError(f"no member begins at byte {at}: {error}") from error
        member = _Member(header.name, at + BLOCK_BYTES, header.size, header.mode)
        if block != known or member.mode not in (PINNED_MODE, UNPINNED_MODE):
            raise CorruptRecordError(f"the member at byte {at} is not a plain file of an export")
        end = member.at + member.nbytes
        if member.nbytes < 0 or end > self.nbytes:
            raise CorruptRecordError("it ends within a member")
        if any(self._read(end, padding_bytes(member.nbytes))):
            raise CorruptRecordError(f"something follows the member at byte {at}")
        return member

    def _manifest(self, member: _Member) -> Manifest:
        if member.name != MANIFEST or member.nbytes > self._bounds.manifest_bytes:
            raise CorruptRecordError(f"it begins with {member.nbytes} bytes of {member.name!a}")
        text = self._read(member.at, member.nbytes)
        try:
            MANIFEST_SEAL.check(text)
            manifest = Manifest.model_validate_json(text)
        except UnsupportedRecordError as error:
            raise self._other_format(str(error)) from error
        except ValidationError as error:
            raise CorruptRecordError(f"its manifest does not parse ({_first(error)})") from error
        if manifest.fingerprint != self._fingerprint:
            raise ExchangeError(
                Fault.REFUSED,
                f"{self._path} holds caches of {manifest.model!a} under fingerprint "
                f"{manifest.fingerprint}; here it is {self._fingerprint}. Caches are valid for the "
                "same model, cache.kv_bits, versions of MLX and kind of device alone.",
            )
        return manifest

    def _entry(self, member: _Member, chain: "_Chain", shape: SegmentShape) -> Entry:
        record = self._record(member.at, member.nbytes)
        chain.count(len(record.head.raw), self._bounds.all_heads_bytes)
        info = record.head.info(member.nbytes, pinned=member.mode == PINNED_MODE)
        if info.fingerprint != self._fingerprint:
            raise CorruptRecordError("it is of another model than the file")
        if member.name != f"{info.record_id}{RECORD_SUFFIX}":
            raise CorruptRecordError(f"it is named {member.name!a}")
        if not 0 <= info.created <= 1e11:
            raise CorruptRecordError("its time is out of range")
        entry = Entry(member.at, info, *_described(info.kind, record.head.meta))
        chain.add(info, entry.label.stable_digest)
        tensors = record.head.tensors()
        shape.check(tensors, entry.meta, start=info.start, end=entry.end)
        record.verify(tensors)
        return entry

    def _record(self, at: int, nbytes: int) -> OpenRecord:
        return OpenRecord(self._descriptor, at, nbytes, self._bounds.record_head_bytes)

    def _read(self, at: int, nbytes: int) -> bytes:
        raw = os.pread(self._descriptor, nbytes, at)
        if len(raw) < nbytes:
            raise CorruptRecordError("it ends too early")
        return raw

    def _other_format(self, why: str) -> ExchangeError:
        return ExchangeError(
            Fault.REFUSED,
            f"{self._path} cannot be imported: {why}. Export it again with the version that runs "
            "here.",
        )

    def _damaged(self, why: str) -> ExchangeError:
        return ExchangeError(
            Fault.DAMAGED,
            f"{self._path} is not a whole export: {why}. Nothing was imported. Export it again, "
            "or copy it again from where it came.",
        )


class _Chain:
    """The segments so far: where each ends, and the digest of all token ids up to there."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[int, _Hash]] = {"": (0, hashlib.sha256())}
        self._head_bytes = 0

    def count(self, head_bytes: int, limit_bytes: int) -> None:
        self._head_bytes += head_bytes
        if self._head_bytes > limit_bytes:
            raise CorruptRecordError(f"headers take more than {limit_bytes} bytes")

    def add(self, info: RecordInfo, stable_digest: str) -> None:
        if info.record_id in self._ends:
            raise CorruptRecordError(f"{info.record_id} is there twice")
        if info.parent_id not in self._ends:
            raise CorruptRecordError("its parent is not there")
        end, digest = self._ends[info.parent_id]
        if info.start != end or not len(info.token_ids) or (info.token_ids < 0).any():
            raise CorruptRecordError("its tokens do not follow those before it")
        digest = digest.copy()
        digest.update(info.token_ids.astype("<i4").tobytes())
        name = digest.hexdigest()
        # The same digests as `record_id` and `token_digest` compute.
        if info.record_id != name[:32] or stable_digest not in ("", name[:12]):
            raise CorruptRecordError("its name is not that of its tokens")
        self._ends[info.record_id] = end + len(info.token_ids), digest


def _described(kind: str, meta: str) -> tuple[Label, dict[str, Any]]:
    try:
        label, described = Label.from_text(kind), json.loads(meta)
    except (TypeError, ValueError, RecursionError) as error:
        raise CorruptRecordError("its description does not parse") from error
    flags = label.is_main, label.has_states
    if not isinstance(described, dict) or not all(isinstance(flag, bool) for flag in flags):
        raise CorruptRecordError("its description does not parse")
    return label, described


def _first(error: ValidationError) -> str:
    """The place of the manifest's first error, without its content."""
    detail = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
