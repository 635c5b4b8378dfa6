"""docs/models.md says what a run finds, and the families that most people use stay green."""

from pathlib import Path
from typing import Final

import pytest

from tests.checkout import ROOT
from tests.real.families import FAMILIES, Family
from tests.real.table import examine, line
from tests.real.weights import material

FIRST: Final = [family for family in FAMILIES if family.first]


@pytest.fixture(scope="module")
def folder() -> Path:
    """The folder of templates and tokenizers."""
    material("tokenizers")
    return material("templates").parent


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


# Only these, since a run over all templates takes minutes: `make models` makes it.
@pytest.mark.parametrize("family", FIRST, ids=lambda family: family.template)
def test_the_page_says_what_a_run_finds(family: Family, folder: Path, page: str) -> None:
    """A family's line and its reasons are those of a new run, and all of it is green."""
    row = examine(folder, family)
    assert f"{line(row)}\n" in page
    assert row.is_green(), row.reasons()


def test_the_page_has_every_template(folder: Path, page: str) -> None:
    """No template of the package is left out, and none is made up."""
    templates = {path.stem for path in (folder / "templates").iterdir()}
    assert {family.template for family in FAMILIES} == templates
    assert all(f"`{template}`" in page for template in templates)
