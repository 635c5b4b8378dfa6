"""Folders that macOS keeps from a service: Documents, Desktop, Downloads, iCloud Drive, volumes.

In a terminal, the user has allowed the terminal program to read them. A launchd agent is another
program without a window, so its reads end with "Operation not permitted", or wait for a consent
that nobody gives. `service install` therefore warns before it starts the service.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyclaude.cli.service.manager import Program
from anyclaude.runtime.paths import Paths

# Below the user's home folder, with the name that Finder shows.
_IN_HOME: Final = {
    "Documents": "Documents",
    "Desktop": "Desktop",
    "Downloads": "Downloads",
    "Library/Mobile Documents": "iCloud Drive",
    "Library/CloudStorage": "a cloud drive",
}
_VOLUMES: Final = Path("/Volumes")


@dataclass(frozen=True)
class Place:
    """A path that the service reads; `name` is how a sentence calls it."""

    name: str
    path: Path


def read_by(
    program: Program, paths: Paths, model: str, environ: Mapping[str, str], folder: Path
) -> list[Place]:
    """What the service reads; a relative path of the `model` starts from `folder`."""
    installation = [program.executable.parent, Path(__file__).parent]
    places = [Place("The installation", path) for path in installation]
    places.append(Place("The folder for state and caches", paths.state))
    named = Path(model).expanduser()
    # Otherwise it is a hub id.
    if model and (named.is_absolute() or os.path.exists(folder / named)):  # noqa: PTH110 - no error
        places.append(Place("The model", folder / named))
    hub = environ.get("HF_HUB_CACHE") or environ.get("HF_HOME")
    if hub:
        places.append(Place("The hub cache", Path(hub).expanduser()))
    return places


def warnings(places: Sequence[Place], user_home: Path) -> list[str]:
    """One warning for each kind of place that the service may not be able to read."""
    found: dict[str, str] = {}
    for place in places:
        folder = _protected_folder(place.path, user_home)
        if folder and place.name not in found:
            found[place.name] = _warning(place, folder, user_home)
    return list(found.values())


def _warning(place: Place, folder: str, user_home: Path) -> str:
    return (
        f"{place.name} {place.path} is in {folder}, which macOS keeps from services: the service "
        f'may fail with "Operation not permitted". Move it to a folder such as '
        f"{user_home / 'anyclaude'} and run `anyclaudectl service install` again, or allow "
        f"{os.path.realpath(sys.executable)} in System Settings, Privacy & Security, Full Disk "
        "Access."
    )


def _protected_folder(path: Path, user_home: Path) -> str:
    """The name of the protected folder that holds `path`, itself or by links; else empty."""
    roots = {user_home / below: name for below, name in _IN_HOME.items()}
    roots[_VOLUMES] = "another volume"
    for candidate in (path.absolute(), path.resolve()):
        for root, name in roots.items():
            if _is_within(candidate, root) or _is_within(candidate, root.resolve()):
                return name
    return ""


def _is_within(path: Path, folder: Path) -> bool:
    # The file systems of macOS ignore case.
    return Path(str(path).casefold()).is_relative_to(str(folder).casefold())
