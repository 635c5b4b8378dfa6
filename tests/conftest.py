"""Settings of the whole suite, and the figures that tests measured, shown at its end.

A test says `record_property(FIGURES, "what it measured")`; equal lines are shown once, counted.
"""

import gc
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from tests.figures import FIGURES

# A build is judged on its change, not on the luck of a draw; at a desk new examples are wanted.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "desk")

# Tests of bits compare with what the CPU computes: on Metal, other shapes give other last bits. It
# has to be set before the worker's modules are imported, some of which keep the device's name.
if sys.platform == "darwin":
    import mlx.core as mx

    mx.set_default_device(mx.cpu)

# Started in the background, a suite ignores SIGINT, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Test modules and what they import stay, and collections among them would take a tenth of the time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the slowest files first, so that no process is left alone with one at the end."""
    seconds = Counter[Path]()
    for item in items:
        for slow in item.iter_markers("slow"):
            seconds[item.path] += slow.args[0]
    items.sort(key=lambda item: -seconds[item.path])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = Counter(
        str(value)
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == FIGURES
    )
    if lines:
        terminalreporter.section("figures")
    for line, count in lines.items():
        terminalreporter.line(line if count == 1 else f"{count} times: {line}")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as every process of ours does."""
    return "asyncio"
