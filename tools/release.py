"""Checks a release tag and prints its notes: `python -m tools.release v0.1.0`.

The notes are the section of CHANGELOG.md for that version.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]


class ReleaseError(Exception):
    """The tag cannot be released; the message says what to change."""


def notes(tag: str, pyproject: str, changelog: str) -> str:
    """Returns the changelog's section for `tag`.

    Raises:
        ReleaseError: the tag is not the version of `pyproject`, or has no section.
    """
    version = tomllib.loads(pyproject)["project"]["version"]
    if tag != f"v{version}":
        raise ReleaseError(f"The tag is {tag}, but pyproject.toml says {version}: tag v{version}.")
    section = re.search(
        rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)",
        changelog,
        re.MULTILINE | re.DOTALL,
    )
    if section is None or not section[1].strip():
        raise ReleaseError(f"CHANGELOG.md says nothing about {version}: add `## [{version}]`.")
    return section[1].strip()


def _main() -> None:
    files = (
        (_ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "CHANGELOG.md")
    )
    try:
        print(notes(sys.argv[1], *files))
    except ReleaseError as error:
        sys.exit(f"release: {error}")


if __name__ == "__main__":
    _main()
