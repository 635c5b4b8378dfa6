"""What goes into the disk tier and what it tells about itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import mlx.core as mx
from anyclaude.mlx.tokens import TokenArray

MIB = 1024 * 1024


@dataclass(frozen=True, eq=False)
class Segment:
    """One node of the prefix tree, on its way to disk."""

    # Lower-case hex, chosen by the caller: a digest of everything that the KV depends on.
    record_id: str
    # "" for a root segment.
    parent_id: str
    # Offset of the first token in its prompt.
    start: int
    token_ids: TokenArray
    # Evaluated, and without spare room.
    arrays: Mapping[str, mx.array]
    # JSON; opaque to the tier.
    meta: Mapping[str, Any]
    kind: str
    session_id: str
    pinned: bool


@dataclass(frozen=True, eq=False)
class RecordInfo:
    """A complete record on disk. Times are epoch seconds; `nbytes` is the file's size."""

    record_id: str
    parent_id: str
    start: int
    token_ids: TokenArray
    nbytes: int
    last_use: float
    created: float
    pinned: bool
    kind: str
    session_id: str


@dataclass(frozen=True)
class Bounds:
    """The tier's limits beside its budget."""

    # Arrays held in memory until written. One segment larger than this may wait alone.
    queue_bytes: int = 2048 * MIB
    # Doubtful records kept for inspection.
    quarantine_bytes: int = 64 * MIB
    # Left free on the volume for everybody else.
    min_free_bytes: int = 1024 * MIB
    # After a failure, how long until writing is tried again.
    retry_seconds: float = 30.0
    # How long `save(..., wait=True)` waits.
    wait_seconds: float = 60.0
    # How long `close` waits for writes under way.
    close_seconds: float = 30.0


class DiskState(StrEnum):
    SERVING = "serving"
    # Writing failed; what is stored is still read, and writing is tried again.
    FAILING = "failing"
    # Another process owns the folder; nothing is read or written until it lets go.
    SHARED = "shared"
    # An unexpected error ended the writing thread, or the tier was closed.
    STOPPED = "stopped"


@dataclass(frozen=True)
class DiskStatus:
    folder: Path
    state: DiskState
    # Of this model.
    records: int
    # Everything in the folder, the write under way and the index included.
    nbytes: int
    budget_bytes: int
    pending_writes: int
    # Arrays still held in memory for writes.
    pending_bytes: int
    written: int
    loaded: int
    failed_writes: int
    skipped_writes: int
    evicted: int
    quarantined: int
    # Records whose parents were missing when the folder was opened.
    orphans: int
    # Records of another format version: never read, first to go.
    other_versions: int
    index_failures: int
    last_error: str

    @property
    def degraded(self) -> bool:
        """Whether new segments may fail to reach the disk now."""
        return self.state is not DiskState.SERVING
