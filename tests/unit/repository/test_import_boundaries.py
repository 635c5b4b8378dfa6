"""Who may import whom: siblings never each other, nothing upward, MLX in its worker alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.checkout import ROOT

# From the bottom up; a package may import its own level's name and anything below.
LEVELS: Final = (
    ("anyclaude.runtime",),
    ("anyclaude.messages",),
    (
        "anyclaude.supervisor",
        "anyclaude.proxy",
        "anyclaude.mlx",
        "anyclaude.relay",
        "anyclaude.cli",
        "anyclaude.launcher",
    ),
)
# The launcher is a command of the same package folder and shares the client of the control API.
ALLOWED: Final = {("anyclaude.launcher", "anyclaude.cli")}
HEAVY: Final = ("mlx", "mlx_lm", "transformers", "tokenizers", "llguidance")


def modules() -> Iterator[tuple[str, Path]]:
    for root in ("daemon", "workers", "ctl"):
        for file in (ROOT / root).rglob("*.py"):
            parts = file.relative_to(ROOT / root).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), file


def imports(file: Path) -> Iterator[str]:
    """Every absolute import, also those inside functions and type checking blocks."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module: str) -> tuple[int, str] | None:
    for level, names in enumerate(LEVELS):
        for name in names:
            if module == name or module.startswith(name + "."):
                return level, name
    return None


def test_nothing_imports_upward_or_sideways() -> None:
    """A package imports itself, what is below it, and the generated contracts."""
    wrong = []
    for module, file in modules():
        here = package_of(module)
        for imported in imports(file):
            there = package_of(imported)
            if here is None or there is None or here[1] == there[1]:
                continue
            if there[0] >= here[0] and (here[1], there[1]) not in ALLOWED:
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


def test_mlx_is_imported_in_its_worker_alone() -> None:
    """No other process pays for MLX or depends on it."""
    wrong = [
        f"{module} imports {imported}"
        for module, file in modules()
        for imported in imports(file)
        if imported.split(".")[0] in HEAVY and not module.startswith("anyclaude.mlx")
    ]
    assert wrong == []


def test_every_module_belongs_to_a_layer() -> None:
    """A new package must be given its place here."""
    stray = [module for module, _ in modules() if package_of(module) is None]
    assert stray == []


@pytest.mark.parametrize(
    "entry",
    [
        "anyclaude.proxy.main",
        "anyclaude.supervisor.main",
        "anyclaude.relay.main",
        "anyclaude.cli.main",
        "anyclaude.launcher.main",
    ],
)
def test_a_process_without_mlx_never_loads_it(entry: str) -> None:
    """What counts is what is loaded, whoever asks for it."""
    code = f"import sys, {entry}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
