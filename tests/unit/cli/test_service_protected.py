"""Which folders macOS keeps from a service, and what `service install` says about them."""

from pathlib import Path

import pytest

from anyclaude.cli.service.manager import Program
from anyclaude.cli.service.protected import Place, read_by, warnings
from anyclaude.runtime.paths import find_paths


@pytest.mark.parametrize(
    ("below", "folder"),
    [
        ("Documents/anyclaude", "Documents"),
        ("documents/anyclaude", "Documents"),
        ("Desktop", "Desktop"),
        ("Downloads/model", "Downloads"),
        ("Library/Mobile Documents/com~apple~CloudDocs/m", "iCloud Drive"),
        ("Library/CloudStorage/Dropbox/m", "a cloud drive"),
    ],
)
def test_a_protected_folder_is_named(tmp_path: Path, below: str, folder: str) -> None:
    """The warning says which path, in which folder, why, and both ways out."""
    place = Place("The model", tmp_path / below)

    (warning,) = warnings([place], tmp_path)

    assert warning.startswith(f"The model {place.path} is in {folder}, which macOS keeps from")
    assert "Operation not permitted" in warning
    assert "`anyclaudectl service install` again" in warning
    assert "Full Disk Access" in warning


def test_another_volume_is_named(tmp_path: Path) -> None:
    """External disks need the user's consent as well."""
    (warning,) = warnings([Place("The model", Path("/Volumes/Models/m"))], tmp_path)

    assert "is in another volume" in warning


def test_a_link_into_a_protected_folder_is_found(tmp_path: Path) -> None:
    """The path that is read decides, not the one that is written."""
    (tmp_path / "Documents").mkdir()
    (tmp_path / "code").symlink_to(tmp_path / "Documents")

    assert len(warnings([Place("The installation", tmp_path / "code")], tmp_path)) == 1


@pytest.mark.parametrize("below", ["anyclaude", "Library/Caches/m", "Documents2/m", "x/Desktop"])
def test_other_folders_are_no_problem(tmp_path: Path, below: str) -> None:
    """Only the user's own protected folders count, by their whole names."""
    assert warnings([Place("The model", tmp_path / below)], tmp_path) == []


def test_one_warning_for_each_kind_of_place(tmp_path: Path) -> None:
    """A checkout has its commands and its code in one protected folder: that is one warning."""
    places = [Place("The installation", tmp_path / "Desktop" / name) for name in ("bin", "ctl")]

    assert len(warnings([*places, Place("The model", tmp_path / "Desktop/m")], tmp_path)) == 2


def test_what_the_service_reads(tmp_path: Path) -> None:
    """Installation, home, model and hub cache; a hub id is no path."""
    (tmp_path / "local").mkdir()
    program = Program(Path("/v/bin/anyclauded"), {}, Path("/boot.log"))
    paths = find_paths({"ANYCLAUDE_HOME": "/home-of-it"})

    def read(model: str) -> dict[str, Path]:
        places = read_by(program, paths, model, {"HF_HOME": "/hub"}, tmp_path)
        return {place.name: place.path for place in reversed(places)}

    known = {
        "The installation": Path("/v/bin"),
        "The folder for state and caches": Path("/home-of-it/state"),
        "The hub cache": Path("/hub"),
    }
    assert read("") == read("org/name") == known
    assert read("/models/m") == known | {"The model": Path("/models/m")}
    assert read("local") == known | {"The model": tmp_path / "local"}
