"""The BLAS of a process is read from the libraries that it has loaded."""

import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from anyclaude.mlx.blas import blas, name_of
from anyclaude.runtime.blas import REFERENCE_BLAS

_MAP = "7f0a-7f0b r-xp 00000000 08:01 42   "


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblasp-r0.3.21.so"], "OpenBLAS"),
        (["/opt/intel/libmkl_rt.so.2"], "Intel MKL"),
        (["/v/mlx_cpu.libs/libblas-bd8a.so.3", "/v/numpy.libs/libscipy_openblas64_-3.so"], None),
        ([], None),
    ],
)
def test_the_library_is_named(files: list[str], name: str | None) -> None:
    """numpy's own OpenBLAS does not count, nor does the file of MLX's wheel."""
    assert name_of([_MAP + file for file in files]) == (name or REFERENCE_BLAS)


@pytest.mark.skipif(
    sys.platform != "linux" or mx.default_device() != mx.Device(mx.cpu), reason="not a Linux CPU"
)
def test_this_process(tmp_path: Path) -> None:
    """A process names the library that was preloaded; the wheel's if there is none."""
    maps = Path("/proc/self/maps").read_text()
    # Any library will do, since only its name is read.
    any_library = next(line.split()[-1] for line in maps.splitlines() if "/libm." in line)
    library = Path(shutil.copy(any_library, tmp_path / "libopenblas.so.0"))
    code = "from anyclaude.mlx.blas import blas; print(blas())"
    preloaded = subprocess.run(
        [sys.executable, "-c", code],
        env={"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert preloaded.stdout.strip() == "OpenBLAS"
    assert blas() == REFERENCE_BLAS
