"""The order of the relay's modules: each imports only modules of lower rows."""

import pytest

from tests.unit.repository.test_import_boundaries import imports, modules

PACKAGE = "anyclaude.relay"
# From the bottom up.
# fmt: off
ROWS = (
    ("breaker", "endings", "environment", "halves", "names", "overflow", "sse", "state",
     "thoughts", "transport", "usage"),
    ("arguments", "quirks", "refusals"),
    ("dialect", "failures"),
    ("client", "turns"),
    ("anthropic", "openai"),
    ("probe",),
    ("upstream",),
    ("counting", "forward", "generation"),
    ("service",),
    ("main",),
    ("__main__",),
)
# fmt: on
# Within the folder of chat completions.
OPENAI_ROWS = (("calls", "content"), ("answer", "messages"), ("dialect",))
ANTHROPIC_ROWS = (("answer",), ("dialect",))


def part_of(module: str, package: str) -> str:
    """The part of a package that a module is in; empty if it is in none."""
    inside = module.startswith(f"{package}.")
    return module.removeprefix(f"{package}.").partition(".")[0] if inside else ""


@pytest.mark.parametrize(
    ("package", "rows"),
    [(PACKAGE, ROWS), (f"{PACKAGE}.openai", OPENAI_ROWS), (f"{PACKAGE}.anthropic", ANTHROPIC_ROWS)],
    ids=["relay", "openai", "anthropic"],
)
def test_imports_go_down(package: str, rows: tuple[tuple[str, ...], ...]) -> None:
    """Modules import only from lower rows, so there is no circle; every module is listed."""
    row_of = {part: number for number, row in enumerate(rows) for part in row}
    parts = {part_of(module, package) for module, _ in modules()} - {""}
    assert parts == row_of.keys()
    wrong = [
        f"{module} imports {imported}"
        for module, file in modules()
        if (part := part_of(module, package))
        for imported in imports(file)
        if (other := part_of(imported, package)) in row_of
        and other != part
        and row_of[other] >= row_of[part]
    ]
    assert wrong == []
