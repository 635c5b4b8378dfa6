"""Starting a process of the service imports nothing that it does not use."""

import subprocess
import sys

import pytest

from tests.checkout import ROOT

MAINS = (
    "daemon/anyclaude/supervisor/__main__.py",
    "daemon/anyclaude/proxy/__main__.py",
    "workers/anyclaude/mlx/__main__.py",
    "workers/anyclaude/relay/__main__.py",
)


@pytest.mark.parametrize("main", MAINS)
def test_every_process_imports_it_first(main: str) -> None:
    """It precedes all other modules of ours, since it changes how they are imported."""
    lines = (ROOT / main).read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if "import" in line and "anyclaude." in line.split("#")[0])
    assert first.startswith("import anyclaude.runtime.cheap_start")


def test_logs_and_settings_load_without_what_they_do_not_use() -> None:
    """Neither rich nor the metadata of installed packages is read, and nothing is collected."""
    code = (
        "import importlib.metadata; importlib.metadata.distributions = None\n"
        "import anyclaude.runtime.cheap_start, anyclaude.runtime.logs\n"
        "import gc, sys; print(gc.isenabled(), 'pygments' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
