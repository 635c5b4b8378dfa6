"""Where everything is on disk, and how small files are replaced there.

Every command computes the same `Paths`, so `anyclaudectl` finds the daemon's socket by itself.
`ANYCLAUDE_HOME` moves everything under one folder. Folders have mode 0700. If a socket path would
be longer than `sun_path` allows, sockets go to a short private folder under /tmp instead.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

# sun_path holds 104 bytes on macOS, 108 on Linux, the final NUL included.
MAX_SOCKET_PATH_BYTES = 103
LONGEST_SOCKET_NAME = "frontend-999999.sock"


class UnsafeFolderError(Exception):
    """A folder that must be private belongs to somebody else or is a link."""


@dataclass(frozen=True)
class Paths:
    """Folders and files of one installation."""

    config_file: Path
    state: Path
    cache: Path
    logs: Path
    run: Path

    @property
    def control_socket(self) -> Path:
        return self.run / "ctl.sock"

    @property
    def lock_file(self) -> Path:
        """Not beside the sockets: programs that clean /tmp remove those."""
        return self.state / "daemon.lock"

    @property
    def mode_file(self) -> Path:
        return self.state / "mode.json"

    @property
    def chooser_file(self) -> Path:
        """The last choice made in the chooser of `anyclaude`."""
        return self.state / "chooser.json"

    @property
    def speeds_file(self) -> Path:
        """The measured speed of each mode."""
        return self.state / "speeds.json"

    @property
    def history_file(self) -> Path:
        """The records of the newest requests."""
        return self.state / "requests.jsonl"

    @property
    def descriptions_folder(self) -> Path:
        """What images were described as, one file for each."""
        return self.cache / "images"

    @property
    def log_file(self) -> Path:
        return self.logs / "anyclauded.log"

    @property
    def worker_tmp(self) -> Path:
        """TMPDIR of the MLX worker: MLX compiles kernels there and loads them."""
        return self.state / "tmp"

    def worker_socket(self, name: str, generation: int) -> Path:
        return self.run / f"{name}-{generation}.sock"

    def create(self) -> None:
        """Makes every folder, private to this user.

        Raises:
            UnsafeFolderError: a folder is a link or belongs to another user.
        """
        for folder in (self.config_file.parent, self.state, self.cache, self.logs, self.run):
            make_private_folder(folder)


def make_private_folder(folder: Path) -> None:
    """Creates `folder` 0700, or checks that an existing one is ours."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = folder.lstat()
    if stat.S_ISLNK(info.st_mode) or info.st_uid != os.getuid():
        raise UnsafeFolderError(
            f"{folder} is a link or belongs to another user. "
            "Remove it, or set ANYCLAUDE_HOME to a folder of your own."
        )
    if stat.S_IMODE(info.st_mode) & 0o077:
        folder.chmod(0o700)


def find_paths(environ: Mapping[str, str]) -> Paths:
    """Computes the paths from the environment; touches nothing."""
    home = environ.get("ANYCLAUDE_HOME")
    if home:
        return _under(Path(home).expanduser().absolute())
    dirs = platformdirs.PlatformDirs("anyclaude", appauthor=False)
    state = Path(dirs.user_state_path)
    return Paths(
        config_file=Path(dirs.user_config_path) / "config.toml",
        state=state,
        cache=Path(dirs.user_cache_path),
        logs=Path(dirs.user_log_path),
        # Not the session's runtime folder: a script without a login session would not find it.
        run=_short_enough(state / "run"),
    )


def _under(home: Path) -> Paths:
    return Paths(
        config_file=home / "config.toml",
        state=home / "state",
        cache=home / "cache",
        logs=home / "logs",
        run=_short_enough(home / "run"),
    )


def _short_enough(run: Path) -> Path:
    if len(os.fsencode(run / LONGEST_SOCKET_NAME)) <= MAX_SOCKET_PATH_BYTES:
        return run
    digest = hashlib.sha256(os.fsencode(run)).hexdigest()[:12]
    return Path("/tmp") / f"anyclaude-{os.getuid()}-{digest}"  # noqa: S108 - made 0700, owner checked


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
    """Replaces `file` unless it has this content already; returns whether it wrote."""
    if file.is_file() and file.read_bytes() == content:
        return False
    write_atomically(file, content, mode)
    return True
