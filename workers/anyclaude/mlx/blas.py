"""Which library multiplies matrices on a CPU: on Linux, MLX's wheel comes with a slow one."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import mlx.core as mx
from anyclaude.runtime.blas import REFERENCE_BLAS

# Loaded in place of the wheel's. numpy has an OpenBLAS of its own, libscipy_openblas, for itself.
_OTHERS: Final = {"openblas": "OpenBLAS", "mkl": "Intel MKL", "blis": "BLIS"}
_FILE: Final = re.compile(rf"/lib({'|'.join(_OTHERS)})[^/]*$", re.MULTILINE)
_MAPS: Final = Path("/proc/self/maps")


def blas() -> str:
    """The name of this process's library; empty on a GPU, and on a Mac, which has its own."""
    if mx.default_device() != mx.Device(mx.cpu) or not _MAPS.exists():
        return ""
    return name_of(_MAPS.read_text(errors="replace").splitlines())


def name_of(lines: Iterable[str]) -> str:
    """The library that the lines of a process's memory map name."""
    found = next(filter(None, map(_FILE.search, lines)), None)
    return _OTHERS[found[1]] if found else REFERENCE_BLAS
