"""Whole files or none: written beside their place, then moved into it."""

import os
import tempfile
from pathlib import Path


def write_atomically(file: Path, content: bytes, mode: int) -> None:
    """Replaces `file`, making its folder; a reader sees the old content or the new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_if_changed(file: Path, content: bytes, mode: int) -> bool:
    """Writes unless the file holds just this already; says whether it wrote."""
    if file.is_file() and file.read_bytes() == content:
        return False
    write_atomically(file, content, mode)
    return True
