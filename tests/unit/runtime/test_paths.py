"""Paths: every command computes the same ones, private and short enough for sockets."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from anyclaude.runtime.paths import MAX_SOCKET_PATH_BYTES, UnsafeFolderError, find_paths
from anyclaude.runtime.streams import stream_socket


@pytest.fixture
def home():
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_one_variable_moves_everything(home):
    """ANYCLAUDE_HOME holds config, state, caches, logs and sockets."""
    paths = find_paths({"ANYCLAUDE_HOME": str(home)})
    for path in (paths.config_file, paths.mode_file, paths.cache, paths.log_file, paths.lock_file):
        assert path.is_relative_to(home)
    assert paths.control_socket == home / "run" / "ctl.sock"


def test_finding_touches_nothing(home):
    """Computing the paths creates no folder."""
    find_paths({"ANYCLAUDE_HOME": str(home / "new")})
    assert not (home / "new").exists()


def test_folders_are_private(home):
    """Folders are created 0700, and wider ones of ours are narrowed."""
    (home / "logs").mkdir(mode=0o755)
    paths = find_paths({"ANYCLAUDE_HOME": str(home)})
    paths.create()
    for folder in (paths.state, paths.cache, paths.logs, paths.run):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_long_homes_fall_back_to_one_short_folder(home):
    """A home too long for sockets gets a short folder, the same for every command."""
    long = {"ANYCLAUDE_HOME": str(home / ("x" * 120))}
    first, second = find_paths(long), find_paths(long)
    assert first == second
    assert first.run.parent == Path("/tmp")
    assert first.state.is_relative_to(home)
    for longest in (
        first.worker_socket("frontend", 999_999),
        stream_socket(first.worker_socket("relay", 999_999)),
    ):
        assert len(os.fsencode(longest)) <= MAX_SOCKET_PATH_BYTES
    other = find_paths({"ANYCLAUDE_HOME": str(home / ("y" * 120))})
    assert other.run != first.run


def test_the_longest_home_that_fits_is_kept():
    """The fallback begins one byte past the limit of the longest socket name."""
    limit = MAX_SOCKET_PATH_BYTES - len("/run/frontend-999999.sock")
    fits = "/" + "x" * (limit - 1)
    assert find_paths({"ANYCLAUDE_HOME": fits}).run == Path(fits) / "run"
    assert find_paths({"ANYCLAUDE_HOME": fits + "x"}).run.parent == Path("/tmp")


def test_a_link_in_place_of_a_folder_is_refused(home):
    """A link in place of a folder is refused, so nobody can redirect the sockets."""
    (home / "elsewhere").mkdir()
    (home / "run").symlink_to(home / "elsewhere")
    with pytest.raises(UnsafeFolderError, match="is a link or belongs to another user"):
        find_paths({"ANYCLAUDE_HOME": str(home)}).create()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(home):
    """A folder of another user is refused."""
    (home / "run").mkdir()
    os.chown(home / "run", 12345, -1)
    with pytest.raises(UnsafeFolderError):
        find_paths({"ANYCLAUDE_HOME": str(home)}).create()
