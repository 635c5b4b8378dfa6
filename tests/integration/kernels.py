"""Compiled MLX kernels, kept from one service under test to the next.

On Linux MLX compiles each kernel with the C++ compiler when a worker first needs it, which takes
about one second of CPU time, and keeps it in the worker's TMPDIR. A service under test has a new
home, so without this store every service would compile the same five to ten kernels again.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from anyclaude.runtime.paths import make_private_folder

_LIBRARIES: Final = "mlx/*/cpu/*.so"
# After this long without a change the linker has finished a file, even if its worker was killed.
_SETTLED_SECONDS: Final = 10.0


def _store() -> Path:
    folder = Path(tempfile.gettempdir()) / f"anyclaude-test-kernels-{os.getuid()}"
    make_private_folder(folder)
    return folder


def lend(worker_tmp: Path) -> None:
    """Puts every known kernel into the TMPDIR of a worker that has not started."""
    store = _store()
    for library in store.glob(_LIBRARIES):
        target = worker_tmp / library.relative_to(store)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(library, target)


def collect(worker_tmp: Path) -> None:
    """Adds the kernels of a worker that has ended to the store; other processes may do the same."""
    store, settled = _store(), time.time() - _SETTLED_SECONDS
    for library in worker_tmp.glob(_LIBRARIES):
        target = store / library.relative_to(worker_tmp)
        if not target.exists() and library.stat().st_mtime < settled:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=store, delete=False) as copy:
                copy.write(library.read_bytes())
            Path(copy.name).replace(target)
