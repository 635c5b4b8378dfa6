"""The disk tier: verified records of the prefix tree's segments, within a byte budget.

One file per segment, written by one thread (temporary name, fsync, rename, folder fsync, then the
index row) and read, every byte checked, on the caller's thread. The files are the truth; the SQLite
index only remembers what would cost time to read again, and is rebuilt whenever it is in doubt.
"""

from anyclaude.workers.mlx.kv.disk.failpoints import Point
from anyclaude.workers.mlx.kv.disk.tier import DiskTier
from anyclaude.workers.mlx.kv.disk.values import (
    Bounds,
    DiskState,
    DiskStatus,
    RecordInfo,
    Segment,
)

__all__ = ["Bounds", "DiskState", "DiskStatus", "DiskTier", "Point", "RecordInfo", "Segment"]
