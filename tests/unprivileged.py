"""Runs a test without root's right to read every file, since users do not have it."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence

from tests.requirements import unavailable

_NOBODY = 65_534
_CAPABILITIES = "-dac_override,-dac_read_search"


@contextlib.contextmanager
def as_another_user() -> Iterator[None]:
    """Runs the block as `nobody` where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def bound_by_modes(command: Sequence[str]) -> list[str]:
    """The command that runs `command` so that the modes of files apply to it, also as root."""
    if os.geteuid() != 0:
        return list(command)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        unavailable("setpriv of util-linux gives up root's right to read every file")
    return [setpriv, f"--bounding-set={_CAPABILITIES}", f"--inh-caps={_CAPABILITIES}", *command]
