"""Where the material is that `python -m tests.real.material` fetched."""

import os
from pathlib import Path

from tests.requirements import unavailable

VARIABLE = "ANYCLAUDE_TEST_MATERIAL"


def material(name: str) -> Path:
    """A folder of the material; the test is skipped, or fails in CI, where it is missing."""
    folder = Path(os.environ.get(VARIABLE, "")) / name
    if VARIABLE not in os.environ or not folder.is_dir():
        unavailable(f"{VARIABLE} names no folder with {name}; see tests/real/material.py")
    return folder
