"""The disk tier: verified records of the prefix tree's segments, within a byte budget.

One file per segment, written by one thread (temporary name, fsync, rename, folder fsync, then the
index row) and read, every byte checked, on the caller's thread. The files are the truth; the SQLite
index only remembers what would cost time to read again, and is rebuilt whenever it is in doubt.
"""

from anyclaude.mlx.kv_disk.failpoints import Point
from anyclaude.mlx.kv_disk.tier import DiskTier
from anyclaude.mlx.kv_disk.values import (
    Bounds,
    DiskState,
    DiskStatus,
    RecordInfo,
    Segment,
)

__all__ = ["Bounds", "DiskState", "DiskStatus", "DiskTier", "Point", "RecordInfo", "Segment"]
