"""A model that is there and cannot be read: a reason and what to do, not a crash."""

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyclaude.mlx.model import ModelMissingError, find_folder
from tests.unprivileged import as_another_user


@pytest.fixture
def folder() -> Iterator[Path]:
    """A model folder that any user can reach, unlike pytest's own temporary folders."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        above = Path(name)
        above.chmod(0o755)
        model = above / "a model"
        model.mkdir(mode=0o755)
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (model / file).write_text("{}")
        yield model
        above.chmod(0o755)
        model.chmod(0o755)


def test_a_readable_model_is_found_by_any_user(folder: Path) -> None:
    """The folder of these tests is readable before they change a mode."""
    with as_another_user():
        assert find_folder(str(folder)) == folder


@pytest.mark.parametrize("closed", ["", "config.json", "tokenizer.json", "model.safetensors"])
def test_a_model_that_may_not_be_read(folder: Path, closed: str) -> None:
    """A folder or a file of mode 000 is named, with the command that opens it."""
    (folder / closed).chmod(0o000)

    with (
        as_another_user(),
        pytest.raises(ModelMissingError, match="Permission denied") as caught,
    ):
        find_folder(str(folder))

    message = str(caught.value)
    assert f"chmod -R u+rX '{folder / closed}'" in message
    assert "anyclaudectl worker restart mlx" in message


def test_a_model_below_a_closed_folder(folder: Path) -> None:
    """The reason is the permission, not that there is no model."""
    folder.parent.chmod(0o000)

    with as_another_user(), pytest.raises(ModelMissingError, match="folders above it"):
        find_folder(str(folder))


def test_a_folder_that_macos_protects(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPERM is the answer of macOS: the advice is about its privacy settings, not about modes."""

    def refuse(path: Path) -> Iterator[Path]:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)

    with pytest.raises(ModelMissingError, match="macOS protects Documents") as caught:
        find_folder(str(folder))

    assert f"Operation not permitted: {folder}" in str(caught.value)
    assert "Full Disk Access" in str(caught.value)


def test_a_link_that_leads_nowhere(folder: Path) -> None:
    """A hub cache whose weights were deleted is an incomplete model, and names the file."""
    weights = folder / "model-00002.safetensors"
    weights.symlink_to(folder / "gone")

    with pytest.raises(ModelMissingError, match="is incomplete: No such file") as caught:
        find_folder(str(folder))

    assert str(weights) in str(caught.value)
