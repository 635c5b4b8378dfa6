"""Small private files that follow what the memory holds, so that it survives a restart.

    answers/FINGERPRINT/NAME

A file begins with a line that names the format, the fingerprint of model and template, and the
checksum (xxh3) of the rest. A file in which one of them differs is removed, counted and never used.

One thread writes and removes the files, so callers never wait for the disk. It compares what is
wanted with what it wrote, so only the latest state is written, and a failure is made good with the
next change. A file is written under a temporary name, synced and renamed: a crash leaves the old
file or the new one.
"""

import re
import shutil
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

import structlog
from xxhash import xxh3_64_hexdigest

from anyclaude.runtime.paths import UnsafeFolderError, make_private_folder, write_atomically

log = structlog.get_logger(__name__)

_FORMAT: Final = "anyclaude-answers-1"
_FINGERPRINT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class Storable(Protocol):
    """An immutable value that can be written to a file."""

    def to_bytes(self) -> bytes: ...


class StoredFolder:
    """The files of one model. Safe to share between threads."""

    def __init__(self, root: Path, fingerprint: str, max_file_bytes: int) -> None:
        """`root` contains a folder for each fingerprint of model and template.

        A larger file than `max_file_bytes` is not read, and is removed.
        """
        self._root = root
        self._folder = root / fingerprint
        self._fingerprint = fingerprint
        self._max_file_bytes = max_file_bytes
        self._wanted: dict[str, Storable] = {}
        # What is on disk. A file that was found and not adopted has no value.
        self._written: dict[str, Storable | None] = {}
        self._damaged = 0
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    @property
    def damaged(self) -> int:
        """The number of files that were not usable."""
        return self._damaged

    def load(self) -> Iterable[tuple[str, bytes]]:
        """The names and contents of all intact files, the oldest first.

        Every file that the caller does not `adopt` is removed with the next change.
        """
        for file in self._files():
            self._written[file.name] = None
            if file.name.startswith("."):
                # A crash interrupted its writing.
                continue
            try:
                yield file.name, self._content(file)
            except (OSError, ValueError) as error:
                self.reject(file.name, str(error))

    def adopt(self, name: str, value: Storable) -> None:
        """Keeps a file that `load` returned; `value` is what it contains."""
        self._wanted[name] = self._written[name] = value

    def reject(self, name: str, why: str) -> None:
        """Counts a file that is not usable."""
        self._damaged += 1
        log.warning("a file of kept answers is not usable and is removed", file=name, why=why)

    def update(self, put: Mapping[str, Storable], drop: Iterable[str] = ()) -> None:
        """Writes files, or replaces them, and removes others. Returns at once."""
        with self._lock:
            for name in drop:
                self._wanted.pop(name, None)
            self._wanted |= put
            if self._thread is None and not self._is_closing:
                self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
                self._thread.start()
        self._changed.set()

    def close(self, timeout_seconds: float) -> None:
        """Writes the latest changes, within the time limit."""
        with self._lock:
            self._is_closing = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def remove_models(self, stored: Collection[str]) -> None:
        """Removes the files of all other models that are not among the `stored` fingerprints."""
        if not self._root.is_dir():
            return
        for folder in self._root.iterdir():
            is_ours = bool(_FINGERPRINT.fullmatch(folder.name)) and not folder.is_symlink()
            if is_ours and folder.name not in {*stored, self._fingerprint}:
                shutil.rmtree(folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        try:
            make_private_folder(self._root)
            make_private_folder(self._folder)
            return sorted(
                (file for file in self._folder.iterdir() if file.is_symlink() or file.is_file()),
                key=lambda file: file.lstat().st_mtime_ns,
            )
        except (OSError, UnsafeFolderError) as error:
            log.warning("kept answers cannot be read", folder=str(self._folder), why=str(error))
            return []

    def _content(self, file: Path) -> bytes:
        """The content of an intact file, without its first line; raises ValueError otherwise."""
        if file.is_symlink() or file.stat().st_size > self._max_file_bytes:
            raise ValueError("it is a link or too large")
        line, _, content = file.read_bytes().partition(b"\n")
        if line != self._first_line(content):
            raise ValueError("its format, model or checksum is another")
        return content

    def _first_line(self, content: bytes) -> bytes:
        return f"{_FORMAT} {self._fingerprint} {xxh3_64_hexdigest(content)}".encode()

    def _run(self) -> None:
        is_closing = False
        while not is_closing:
            self._changed.wait()
            self._changed.clear()
            with self._lock:
                is_closing, wanted = self._is_closing, dict(self._wanted)
            try:
                self._follow(wanted)
            except (OSError, UnsafeFolderError) as error:
                log.warning("answers cannot be kept", folder=str(self._folder), why=str(error))

    def _follow(self, wanted: Mapping[str, Storable]) -> None:
        if not self._folder.is_dir():
            # It is new, or somebody removed it with its files.
            self._written.clear()
        make_private_folder(self._root)
        make_private_folder(self._folder)
        for name, value in wanted.items():
            if self._written.get(name) is not value:
                content = value.to_bytes()
                file = self._first_line(content) + b"\n" + content
                write_atomically(self._folder / name, file, 0o600)
                self._written[name] = value
        for name in self._written.keys() - wanted.keys():
            (self._folder / name).unlink(missing_ok=True)
            del self._written[name]
