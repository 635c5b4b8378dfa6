"""The disk tier: verified records of the prefix tree's segments, within a byte budget.

Each segment is one safetensors file. One thread writes them (temporary name, fsync, rename, fsync
of the folder); they are read, every byte verified, on the caller's thread. There is no index:
tokens, checksums and labels are in a file's own metadata, its last use is its modification time,
and a pinned record is read-only.
"""

from anyclaude.mlx.kv_disk.tier import DiskTier
from anyclaude.mlx.kv_disk.values import (
    Bounds,
    DiskState,
    DiskStatus,
    RecordInfo,
    Segment,
)
from anyclaude.mlx.kv_disk.writing import Point, pass_by

__all__ = [
    "Bounds",
    "DiskState",
    "DiskStatus",
    "DiskTier",
    "Point",
    "RecordInfo",
    "Segment",
    "pass_by",
]
