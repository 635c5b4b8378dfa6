"""What is remembered about records so that opening the folder need not read every header.

The files are the truth. A row that fails its own check, or whose file has another size or time, is
ignored, and a database that is damaged or of another layout is replaced by an empty one.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from xxhash import xxh3_64_hexdigest

from anyclaude.mlx.kv_disk.ledger import Key, Stored
from anyclaude.mlx.kv_disk.record import FORMAT_VERSION, tokens_from_bytes, tokens_to_bytes

# Rows of another record format say nothing about the files that this build can read.
_LAYOUT = 100 * FORMAT_VERSION + 1
_COLUMNS = (
    "fingerprint, record_id, parent_id, start, kind, session_id, created, "
    "nbytes, mtime_ns, last_use, pinned, digest, tokens"
)
_CREATE = f"CREATE TABLE records ({_COLUMNS}, PRIMARY KEY (fingerprint, record_id))"
_INSERT = f"INSERT OR REPLACE INTO records ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608
# What a transaction's journal may take, beside its rows' tokens.
JOURNAL_BYTES = 64 * 1024
_ROWS_PER_TRANSACTION = 8


class Index:
    """One connection to the index; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Opens the index, or starts an empty one.

        Raises:
            OSError, sqlite3.Error: the folder does not take a database now.
        """
        self._path = path
        try:
            self._connection = self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not path.exists():
                raise
            self._remove_files()
            self._connection = self._connect()

    @property
    def nbytes(self) -> int:
        return sum(file.stat().st_size for file in self._files() if file.exists())

    def rows(self) -> list[Stored]:
        """All rows that pass their check."""
        found = self._connection.execute(f"SELECT {_COLUMNS} FROM records").fetchall()  # noqa: S608
        return [stored for row in found if (stored := _stored(row)) is not None]

    def put(self, stored: Stored) -> None:
        with self._connection:
            self._connection.execute(_INSERT, _row(stored))

    def mark(self, marked: Iterable[Stored]) -> None:
        """Remembers last use and pin."""
        self._change(
            "UPDATE records SET last_use = ?, pinned = ? WHERE fingerprint = ? AND record_id = ?",
            [(stored.last_use, stored.pinned, *stored.key) for stored in marked],
        )

    def delete(self, keys: Iterable[Key]) -> None:
        self._change("DELETE FROM records WHERE fingerprint = ? AND record_id = ?", list(keys))

    def replace_all(self, records: Iterable[Stored]) -> None:
        """Makes the index say this and nothing else."""
        with self._connection:
            self._connection.execute("DELETE FROM records")
            self._connection.executemany(_INSERT, [_row(stored) for stored in records])

    def _change(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """In small transactions, whose journals fit into the room that is kept for them."""
        for at in range(0, len(rows), _ROWS_PER_TRANSACTION):
            with self._connection:
                self._connection.executemany(statement, rows[at : at + _ROWS_PER_TRANSACTION])

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, check_same_thread=False, timeout=1.0)
        try:
            _prepare(connection)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _files(self) -> list[Path]:
        return [self._path, self._path.with_name(f"{self._path.name}-journal")]

    def _remove_files(self) -> None:
        for file in self._files():
            with contextlib.suppress(FileNotFoundError):
                file.unlink()


def _prepare(connection: sqlite3.Connection) -> None:
    # A journal that is cut back instead of a write-ahead log: few bytes beside the budget.
    connection.execute("PRAGMA auto_vacuum = FULL")
    connection.execute("PRAGMA journal_mode = TRUNCATE")
    # A power cut may cost the index, which is rebuilt, and never a record.
    connection.execute("PRAGMA synchronous = NORMAL")
    (layout,) = connection.execute("PRAGMA user_version").fetchone()
    if layout == 0:
        connection.execute("DROP TABLE IF EXISTS records")
        connection.execute(_CREATE)
        connection.execute(f"PRAGMA user_version = {_LAYOUT}")
    elif layout != _LAYOUT:
        raise sqlite3.DatabaseError(f"layout {layout}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(str(verdict))


def _row(stored: Stored) -> tuple[object, ...]:
    tokens = tokens_to_bytes(stored.token_ids)
    facts = _facts(stored)
    return (
        *stored.key,
        stored.parent_id,
        stored.start,
        stored.kind,
        stored.session_id,
        stored.created,
        stored.nbytes,
        stored.mtime_ns,
        stored.last_use,
        stored.pinned,
        _digest(facts, tokens),
        tokens,
    )


def _facts(stored: Stored) -> list[object]:
    """What never changes while the file stays the same."""
    return [
        *stored.key,
        stored.parent_id,
        stored.start,
        stored.kind,
        stored.session_id,
        stored.created,
        stored.nbytes,
        stored.mtime_ns,
    ]


def _digest(facts: list[object], tokens: bytes) -> str:
    return xxh3_64_hexdigest(json.dumps(facts).encode() + tokens)


def _stored(row: tuple[object, ...]) -> Stored | None:
    try:
        fingerprint, record_id, parent_id, start, kind, session_id, created, *rest = row
        nbytes, mtime_ns, last_use, pinned, digest, tokens = rest
        stored = Stored(
            key=Key(str(fingerprint), str(record_id)),
            parent_id=str(parent_id),
            start=int(start),  # type: ignore[call-overload]
            token_ids=tokens_from_bytes(bytes(tokens)),  # type: ignore[call-overload]
            kind=str(kind),
            session_id=str(session_id),
            created=float(created),  # type: ignore[arg-type]
            nbytes=int(nbytes),  # type: ignore[call-overload]
            mtime_ns=int(mtime_ns),  # type: ignore[call-overload]
            last_use=float(last_use),  # type: ignore[arg-type]
            pinned=bool(pinned),
        )
    except (TypeError, ValueError):
        return None
    expected = _digest(_facts(stored), tokens_to_bytes(stored.token_ids))
    return stored if digest == expected else None
