"""The disk tier's values: segments to store, records, limits and status."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import mlx.core as mx
from anyclaude.mlx.tokens import TokenArray

MIB = 1024 * 1024
RECORD_SUFFIX: Final = ".safetensors"


@dataclass(frozen=True, eq=False)
class Segment:
    """One node of the prefix tree that is to be written to disk."""

    # Lower-case hex, chosen by the caller: a digest of everything that the KV depends on.
    record_id: str
    # "" for a root segment.
    parent_id: str
    # Offset of the first token in its prompt.
    start: int
    token_ids: TokenArray
    # Evaluated arrays without spare space behind the tokens.
    arrays: Mapping[str, mx.array]
    # Any JSON; the tier does not interpret it.
    meta: Mapping[str, Any]
    kind: str
    session_id: str
    pinned: bool


class Key(NamedTuple):
    """Names a record among the records of all models."""

    fingerprint: str
    record_id: str


@dataclass(eq=False)
class RecordInfo:
    """The description of a complete record, from its header."""

    fingerprint: str
    record_id: str
    parent_id: str
    start: int
    token_ids: TokenArray
    kind: str
    session_id: str
    # Epoch seconds.
    created: float
    last_use: float
    pinned: bool
    # The file's size; 0 until it is written.
    nbytes: int = 0

    @property
    def key(self) -> Key:
        return Key(self.fingerprint, self.record_id)

    @property
    def parent(self) -> Key | None:
        return Key(self.fingerprint, self.parent_id) if self.parent_id else None


@dataclass(frozen=True)
class Bounds:
    """The tier's limits besides its budget."""

    # Arrays kept in memory until they are written; one larger segment may wait alone.
    queue_bytes: int = 2048 * MIB
    # Corrupt records kept for inspection.
    quarantine_bytes: int = 64 * MIB
    # Free space on the volume that the tier never uses.
    min_free_bytes: int = 1024 * MIB
    # After a failure, how long until writing is tried again.
    retry_seconds: float = 30.0
    # How long `close` waits for queued writes.
    close_seconds: float = 30.0
    # Records of all models: each takes about three kilobytes of memory, however small its file is.
    max_records: int = 5000


class DiskState(StrEnum):
    SERVING = "serving"
    # Writing failed. Stored records are still read, and writing is tried again later.
    FAILING = "failing"
    # Another process owns the folder. Nothing is read or written until that process ends.
    SHARED = "shared"
    # An unexpected error ended the writing thread, or the tier was closed.
    STOPPED = "stopped"


@dataclass(frozen=True)
class DiskStatus:
    folder: Path
    state: DiskState
    # Records of this model.
    records: int
    # All files in the folder, with the write in progress.
    nbytes: int
    budget_bytes: int
    pending_writes: int
    # Arrays that stay in memory until they are written.
    pending_bytes: int
    written: int
    loaded: int
    failed_writes: int
    skipped_writes: int
    evicted: int
    quarantined: int
    # Records whose parents were missing when the folder was opened.
    orphans: int
    # Records of another format version: never read, and evicted first.
    other_versions: int
    last_error: str
