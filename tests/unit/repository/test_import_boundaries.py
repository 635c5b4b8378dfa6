"""Which package may import which: never a sibling, nothing upward, no circles, MLX in one place."""

import ast
import functools
import graphlib
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
# Inside the MLX worker, from the bottom up: what each part may import beside itself. Modules that
# are not named wire the parts together: they may import every part, and no part imports them.
MLX: Final = "anyclaude.mlx"
MLX_ARROWS: Final = {
    "tokens": "",
    "lru": "",
    "memory": "",
    "markup": "",
    "transformers_import": "",
    "adapter": "tokens markup transformers_import",
    "prompt": "tokens lru adapter",
    "decode": "tokens lru adapter",
    "kv": "tokens adapter",
    "kv_disk": "tokens adapter kv",
    "kv_explain": "tokens lru prompt kv",
    "engine": "tokens memory adapter kv",
}
# A function that connects names the type of its client, which is imported when it is called.
TYPE_ONLY: Final = {("anyclaude.cli.command", "anyclaude.cli.client")}
HEAVY: Final = ("mlx", "mlx_lm", "transformers", "tokenizers", "llguidance")


def modules() -> Iterator[tuple[str, Path]]:
    for root in ("daemon", "workers", "ctl"):
        for file in (ROOT / root).rglob("*.py"):
            parts = file.relative_to(ROOT / root).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), file


@functools.cache
def _tree(file: Path) -> ast.Module:
    """The parsed module: every test here reads all of them."""
    return ast.parse(file.read_text())


def imports(file: Path, *, inside_functions: bool = True) -> Iterator[str]:
    """Every absolute import, down to the name, also those inside type checking blocks."""
    waiting: list[ast.AST] = [_tree(file)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting.extend(ast.iter_child_nodes(node))


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


def mlx_part(module: str) -> str | None:
    """The first name below the MLX worker's package."""
    return module.split(".")[2] if module.startswith(f"{MLX}.") else None


def test_arrows_inside_the_mlx_worker_run_one_way() -> None:
    """A part imports only what its line in the list names, so caches do not depend on the disk."""
    wrong = []
    for module, file in modules():
        here = mlx_part(module)
        if here in MLX_ARROWS:
            there = {mlx_part(imported) for imported in imports(file)} - {None, here}
            wrong += [f"{module} imports {part}" for part in there - {*MLX_ARROWS[here].split()}]
    assert wrong == []


def test_no_modules_import_each_other() -> None:
    """There is no circle of imports outside functions, type checking blocks included."""
    files = dict(modules())
    graph: dict[str, set[str]] = {}
    for module, file in files.items():
        names = imports(file, inside_functions=False)
        # A name that is no module is one of the module before its last dot.
        found = {name if name in files else name.rpartition(".")[0] for name in names}
        graph[module] = {there for there in found & files.keys() if there != module}
    for here, there in TYPE_ONLY:
        graph[here].discard(there)
    graphlib.TopologicalSorter(graph).prepare()


def test_mlx_lm_is_imported_in_the_adapter_alone() -> None:
    """Only the adapter imports mlx-lm, whose API changes with its releases."""
    importers = {
        module
        for module, file in modules()
        if any(name.split(".")[0] == "mlx_lm" for name in imports(file))
    }
    assert importers == {"anyclaude.mlx.adapter"}


def test_mlx_is_imported_in_its_worker_alone() -> None:
    """Only the MLX worker imports MLX."""
    wrong = [
        f"{module} imports {imported}"
        for module, file in modules()
        for imported in imports(file)
        if imported.split(".")[0] in HEAVY and not module.startswith("anyclaude.mlx")
    ]
    assert wrong == []


def test_every_module_belongs_to_a_layer() -> None:
    """A new package must be added to the list of layers."""
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
    """Other processes never load MLX, also not through a library."""
    code = f"import sys, {entry}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
