"""The index, kept in step with the ledger as far as it lets itself be.

It only saves time, so nothing depends on it: what fails is noted, and made up for from the ledger
at the next change. One thread at a time, as the shelf says.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import structlog

from anyclaude.mlx.kv_disk.index import Index
from anyclaude.mlx.kv_disk.ledger import Stored

log = structlog.get_logger(__name__)


class IndexKeeper:
    """Opens, changes and replaces the index of one folder."""

    def __init__(
        self, path: Path, records: Callable[[], Iterable[Stored]], failed: Callable[[str], None]
    ) -> None:
        """
        Args:
            records: all that the index has to say.
            failed: told of each failure.
        """
        self._path = path
        self._records = records
        self._failed = failed
        self._index: Index | None = None
        # It lacks something that the ledger has; it is written anew when it can be.
        self._is_behind = False
        self.nbytes = 0

    def rows(self) -> list[Stored]:
        """What it remembers of an earlier process."""
        try:
            return self._opened().rows()
        except (sqlite3.Error, OSError) as error:
            self._note(error)
            return []

    def compare(self, rows: Collection[Stored], found: Collection[Stored]) -> None:
        """Notices whether what it remembered is what is there."""
        self._is_behind |= set(rows) != set(found)

    def change(self, change: Callable[[Index], None]) -> None:
        """Changes the index, or writes it anew where it is behind."""
        try:
            if self._index is None or self._is_behind:
                self._opened().replace_all(self._records())
                self._is_behind = False
            else:
                change(self._index)
        except (sqlite3.Error, OSError) as error:
            self._note(error)
        if self._index is not None:
            self.nbytes = self._index.nbytes

    def close(self) -> None:
        if self._index is not None:
            self._index.close()

    def _opened(self) -> Index:
        if self._index is not None:
            self._index.close()
            self._index = None
        self._index = Index(self._path)
        return self._index

    def _note(self, error: Exception) -> None:
        log.warning("cache index failed", error=str(error))
        self._is_behind = True
        self._failed(f"{self._path}: {error}")
