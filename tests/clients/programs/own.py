"""Runs the tests and examples that an SDK's source distribution carries."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from report import BASE_URL, check

# Beside the environment that runs this; `tests/clients/install` unpacks it there.
_SOURCE = Path(sys.prefix) / "source"
_SECONDS = 300
# The id of the demo model, as a test writes it.
SERVED = '"anyclaude-demo"'


def run_tests(
    files: list[str], left_out: str = "", options: Sequence[str] = (), base_url: str = BASE_URL
) -> str:
    """Runs tests but those that pytest's expression `left_out` selects; returns the counts."""
    chosen = ["-k", f"not ({left_out})"] if left_out else []
    done = _python(["-m", "pytest", "-q", "-o", "addopts=", *options, *files, *chosen], base_url)
    print(done.stdout, file=sys.stderr)
    summary = (done.stdout.strip().splitlines() or ["nothing"])[-1].partition(" in ")[0]
    check(done.returncode == 0, summary)
    return summary


def run_examples(names: list[str], base_url: str = BASE_URL, headers: str = "") -> None:
    failed = {}
    for name in names:
        done = _python([f"examples/{name}.py"], base_url, headers)
        print(done.stderr, file=sys.stderr)
        if done.returncode:
            failed[name] = (done.stderr.strip().splitlines() or ["no output"])[-1]
    check(not failed, failed)


def replace(file: str, old: str, new: str) -> None:
    """Changes a test where only the SDK's mock server can answer it."""
    path = _SOURCE / file
    path.write_text(path.read_text().replace(old, new))


def _python(
    arguments: list[str], base_url: str, headers: str = ""
) -> subprocess.CompletedProcess[str]:
    variables = ("TEST_API_BASE_URL", "ANTHROPIC_BASE_URL", "OPENAI_BASE_URL")
    keys = {"ANTHROPIC_API_KEY": "any", "OPENAI_API_KEY": "any"}
    keys |= {"ANTHROPIC_CUSTOM_HEADERS": headers} if headers else {}
    environ: Mapping[str, str] = os.environ | keys | dict.fromkeys(variables, base_url)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=_SOURCE,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
