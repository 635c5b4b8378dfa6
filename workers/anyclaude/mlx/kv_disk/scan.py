"""Opening a folder: which of its files are whole records, by index where it agrees, else by header.

Only reads, so that it also serves a folder that cannot be written to.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from anyclaude.mlx.kv_disk.folder import RecordFile, RecordFolder
from anyclaude.mlx.kv_disk.ledger import Key, Stored
from anyclaude.mlx.kv_disk.reading import read_header
from anyclaude.mlx.kv_disk.record import DoubtfulRecordError, Header, OtherVersionError


@dataclass
class Found:
    records: list[Stored] = field(default_factory=list)
    other_versions: list[RecordFile] = field(default_factory=list)
    doubtful: list[tuple[RecordFile, str]] = field(default_factory=list)
    # Files that could not be read now; left alone.
    unread: list[tuple[RecordFile, str]] = field(default_factory=list)


def scan(folder: RecordFolder, rows: Iterable[Stored]) -> Found:
    """Looks at every file. A row counts only while its file has the size and time that it names."""
    known = {row.key: row for row in rows}
    found = Found()
    for file in folder.record_files():
        row = known.get(file.key)
        if row is not None and (row.nbytes, row.mtime_ns) == (file.nbytes, file.mtime_ns):
            found.records.append(row)
        else:
            _read(file, row, found)
    return found


def _read(file: RecordFile, row: Stored | None, found: Found) -> None:
    try:
        header = read_header(file.path)
        check_name(header, file.key)
    except OtherVersionError:
        found.other_versions.append(file)
    except DoubtfulRecordError as error:
        found.doubtful.append((file, str(error)))
    except OSError as error:
        found.unread.append((file, str(error)))
    else:
        found.records.append(_stored(header, file, row))


def check_name(header: Header, key: Key) -> None:
    """Raises DoubtfulRecordError if a record lies under another one's name."""
    if (header.fingerprint, header.record_id) != key:
        raise DoubtfulRecordError(f"it is {header.record_id} of model {header.fingerprint}")


def _stored(header: Header, file: RecordFile, row: Stored | None) -> Stored:
    return Stored(
        key=file.key,
        parent_id=header.parent_id,
        start=header.start,
        token_ids=header.token_ids,
        kind=header.kind,
        session_id=header.session_id,
        created=header.created,
        nbytes=file.nbytes,
        mtime_ns=file.mtime_ns,
        last_use=row.last_use if row is not None else header.created,
        pinned=row.pinned if row is not None else header.pinned,
    )
