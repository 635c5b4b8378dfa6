"""Runs what a program does with one client, and prints the outcome as one JSON document.

The programs run in the client's own environment, so they import nothing of this project but this.
"""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version

BASE_URL = sys.argv[1] if len(sys.argv) > 1 else ""
# Chooses the model that calls whichever tool is offered first (see `calling_server.py`).
CALLING = "x-anyclaude-mode: calling"
# What the demo model calls. Its description is part of the prompt, its input of the call.
COMMAND = "echo hello from anyclaude"
# The beginning of what the demo model says once its call has a result.
LOOP_ENDS = "The tool call came back"


def report(
    packages: list[str], *steps: Callable[[], object], not_run: Mapping[str, str] | None = None
) -> None:
    """Runs each step, which raises if it fails, and prints its docstring with the outcome.

    What a step returns as text is shown with its outcome. `not_run` has the reason for each thing
    that is left out.
    """
    results = {str(step.__doc__).strip(): _outcome(step) for step in steps}
    results |= {what: f"not run: {why}" for what, why in (not_run or {}).items()}
    versions = {package: version(package) for package in packages}
    print(json.dumps({"versions": versions, "results": results}))


def check(holds: object, seen: object) -> None:
    """Raises with what was seen unless the condition holds."""
    if not holds:
        raise AssertionError(f"unexpected: {seen}")


def _outcome(step: Callable[[], object]) -> str:
    try:
        said = step()
    except Exception as error:  # noqa: BLE001 - any failure of a client is a result
        traceback.print_exc()
        return f"failed: {type(error).__name__}: {error}".split("\n")[0][:200]
    return f"passed: {said}" if isinstance(said, str) else "passed"
