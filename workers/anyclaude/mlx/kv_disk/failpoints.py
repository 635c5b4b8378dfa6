"""Places between two steps on disk where a test may raise, kill the process, or look around."""

from collections.abc import Callable
from enum import Enum, auto


class Point(Enum):
    """Reached right after the step that it names."""

    EVICTED = auto()
    TEMP_CREATED = auto()
    HALF_WRITTEN = auto()
    WRITTEN = auto()
    FILE_SYNCED = auto()
    RENAMED = auto()
    FOLDER_SYNCED = auto()
    INDEXED = auto()
    # A record that goes: its file is gone, its row is not.
    UNLINKED = auto()


Failpoint = Callable[[Point], None]


def pass_by(_point: Point) -> None:
    """What the product uses."""
