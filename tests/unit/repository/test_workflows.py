"""The workflows of `.github/` as zizmor, a linter of workflows, sees them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.checkout import ROOT
from tests.requirements import unavailable

_WORKFLOWS: Final = ROOT / ".github" / "workflows"
_SCRIPT: Final = re.compile(r"(?:^|\s)((?:\.ci|tools|deploy)/[\w-]+)(?=\s|$)", re.MULTILINE)


def _lint(*inputs: Path) -> subprocess.CompletedProcess[str]:
    """Runs zizmor without the network; every input has to be a workflow that it can read."""
    zizmor = shutil.which("zizmor", path=Path(sys.prefix) / "bin")
    if zizmor is None:
        unavailable("zizmor is not installed: run `make setup-dev`")
    command = [zizmor, "--offline", "--strict-collection", "--no-progress", "--color", "never"]
    config = ["--config", str(ROOT / ".github" / "zizmor.yml")]
    return subprocess.run(
        [*command, *config, *map(str, inputs)], capture_output=True, text=True, timeout=60
    )


def test_the_linter_finds_nothing() -> None:
    """Every workflow follows GitHub's schema and has none of the weaknesses that zizmor knows."""
    done = _lint(*sorted(_WORKFLOWS.glob("*.yml")))

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_sees_a_broken_workflow(tmp_path: Path) -> None:
    """A misspelt key and a foreign action without a commit are found."""
    workflows = tmp_path / ".github" / "workflows"
    workflows.mkdir(parents=True)
    misspelt, unpinned = workflows / "misspelt.yml", workflows / "unpinned.yml"
    head = "on: push\npermissions: {}\njobs:\n  a:\n    runs-on: macos-15\n"
    misspelt.write_text(f"{head}    stepz: []\n")
    unpinned.write_text(f"{head}    steps:\n      - uses: somebody/action@v1\n")

    assert _lint(misspelt).returncode != 0
    assert "unpinned-uses" in _lint(unpinned).stdout


def test_every_script_of_a_workflow_exists() -> None:
    """A step that starts a script of the checkout names one that is there and executable."""
    named = {
        script
        for workflow in _WORKFLOWS.glob("*.yml")
        for script in _SCRIPT.findall(workflow.read_text())
    }

    assert {".ci/make-run", "tools/mac-check"} <= named
    assert [name for name in named if not (ROOT / name).stat().st_mode & 0o100] == []
