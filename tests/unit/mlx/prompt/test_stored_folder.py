"""Files of kept answers: private, written whole or not at all, and used only if intact."""

import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyclaude.mlx.prompt import stored_folder
from anyclaude.mlx.prompt.stored_folder import StoredFolder

_CLOSE_SECONDS = 60.0
_MAX_BYTES = 1000


@dataclass(frozen=True)
class _Text:
    text: str

    def to_bytes(self) -> bytes:
        return self.text.encode()


def _folder(root: Path, fingerprint: str = "model") -> StoredFolder:
    return StoredFolder(root, fingerprint, _MAX_BYTES)


def _stored(root: Path, fingerprint: str = "model", **texts: str) -> Path:
    """Writes files; returns their folder."""
    folder = _folder(root, fingerprint)
    folder.update({name: _Text(words) for name, words in texts.items()})
    folder.close(_CLOSE_SECONDS)
    return root / fingerprint


def _found(folder: StoredFolder) -> dict[str, str]:
    return {name: content.decode() for name, content in folder.load()}


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_what_was_stored_is_found_again(tmp_path: Path) -> None:
    """A later process finds the latest content of each file, and none that was dropped."""
    folder = _folder(tmp_path)
    folder.update({"a": _Text("one"), "b": _Text("two"), "c": _Text("three")})
    folder.update({"a": _Text("four")}, drop=["b"])
    folder.close(_CLOSE_SECONDS)

    assert _found(_folder(tmp_path)) == {"a": "four", "c": "three"}


def test_files_are_private(tmp_path: Path) -> None:
    """Only the owner can read the files and enter the folders."""
    file = _stored(tmp_path / "answers", a="one") / "a"

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for folder in (file.parent, file.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _of_another_model(file: Path) -> None:
    other = _stored(file.parent.parent, "other", a="one")
    (other / "a").replace(file)


def _of_another_format(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"answers-1", b"answers-2"))


def _huge(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x" * _MAX_BYTES)


def _linked(file: Path) -> None:
    elsewhere = file.parent.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


@pytest.mark.parametrize(
    "damage",
    [_flip, _cut, _lengthen, _empty, _of_another_model, _of_another_format, _huge, _linked],
    ids=lambda damage: damage.__name__.strip("_"),
)
def test_a_damaged_or_foreign_file_is_never_used(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    """It is ignored, counted and removed; the files beside it are used."""
    stored = _stored(tmp_path, a="one", b="two")
    damage(stored / "a")
    folder = _folder(tmp_path)

    assert _found(folder) == {"b": "two"}
    assert folder.damaged == 1
    folder.adopt("b", _Text("two"))
    folder.update({})
    folder.close(_CLOSE_SECONDS)
    assert _names(stored) == ["b"]


def test_a_file_that_nobody_adopts_is_removed(tmp_path: Path) -> None:
    """What is found and not wanted any more leaves the disk, and counts as no damage."""
    stored = _stored(tmp_path, a="one")
    folder = _folder(tmp_path)
    assert _found(folder)
    folder.update({})
    folder.close(_CLOSE_SECONDS)

    assert not _names(stored)
    assert folder.damaged == 0


def test_a_failure_is_made_good_with_the_next_change(tmp_path: Path) -> None:
    """If the folder cannot be made, nothing raises, and the next change writes everything."""
    root = tmp_path / "answers"
    root.write_text("in the way")
    folder = _folder(root)
    folder.update({"a": _Text("one")})
    folder.close(_CLOSE_SECONDS)
    root.unlink()
    again = _folder(root)
    again.update({"a": _Text("one")})
    again.close(_CLOSE_SECONDS)

    assert _found(_folder(root)) == {"a": "one"}


def test_models_without_caches_lose_their_files(tmp_path: Path) -> None:
    """Only folders of other models without stored caches are removed."""
    for model in ("model", "kept", "gone"):
        _stored(tmp_path, model, a="one")
    (tmp_path / ".not ours").mkdir()
    _folder(tmp_path).remove_models(stored=["kept"])

    assert _names(tmp_path) == [".not ours", "kept", "model"]


_WRITER = """
import importlib.util, itertools, sys
from pathlib import Path
# Not by its package, whose other modules load MLX.
spec = importlib.util.spec_from_file_location("stored_folder", sys.argv[2])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
class Text:
    def __init__(self, number): self.number = number
    def to_bytes(self): return str(self.number).encode() * 50_000
folder = module.StoredFolder(Path(sys.argv[1]), "model", 1 << 30)
print("ready", flush=True)
for number in itertools.cycle(range(10)):
    folder.update({"a": Text(number)})
"""


def test_a_kill_while_writing_leaves_nothing_wrong(tmp_path: Path) -> None:
    """After SIGKILL at any moment a file is whole, and what was half written is removed."""
    rng = random.Random(5)
    for _ in range(8):
        command = [sys.executable, "-c", _WRITER, str(tmp_path), stored_folder.__file__]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            # Not to settle: the moment of the kill is the test's input.
            time.sleep(rng.uniform(0.0, 0.05))
            writer.send_signal(signal.SIGKILL)
        folder = StoredFolder(tmp_path, "model", 1 << 30)
        for content in _found(folder).values():
            assert content == content[0] * len(content)
        assert folder.damaged == 0
        folder.update({})
        folder.close(_CLOSE_SECONDS)
        assert not _names(tmp_path / "model")
