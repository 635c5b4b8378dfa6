"""The documentation's links lead somewhere; the files and `make` commands it names exist."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.checkout import ROOT

_PAGES: Final = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", ".github/**/*.md")
    for page in ROOT.glob(pattern)
)
_FENCE: Final = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_PATH: Final = re.compile(
    r"`((?:protos|daemon|workers|ctl|tools|tests|deploy|docs|benchmarks)/[\w./-]*)`"
)
_HEADING: Final = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading: lower case, punctuation dropped, spaces as dashes."""
    plain = re.sub(r"[`*]|\]\([^)]*\)", "", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def _is_broken(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return True
    anchors = {_anchor(heading) for heading in _HEADING.findall(_prose(target))} if anchor else ()
    return bool(anchor) and anchor not in anchors


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    """Each relative link names a file of the checkout, and each anchor one of its headings."""
    links = [link for link in _LINK.findall(_prose(page)) if "://" not in link]

    assert [link for link in links if _is_broken(page, link)] == []


def test_a_broken_link_is_found() -> None:
    """A missing file, a folder outside the checkout and a missing heading are reported."""
    page = ROOT / "README.md"
    broken = ["docs/none.md", "../../etc", "docs/glossary.md#no-such-heading"]
    good = ["docs/glossary.md", "docs/glossary.md#prompts-and-caches", "docs"]

    assert [link for link in [*broken, *good] if _is_broken(page, link)] == broken


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    """A path of this repository in code style is there, so pages follow when files move."""
    named = set(_PATH.findall(_prose(page)))

    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_make_command_of_the_pages_exists() -> None:
    """A page never names a target that the Makefile does not have."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for page in _PAGES
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }

    assert named - targets == set()


def test_no_address_is_written_with_localhost() -> None:
    """Pages and sources name 127.0.0.1: on a Mac, another process may own our port by IPv6."""
    sources = [
        file
        for folder in ("ctl", "daemon", "workers", "deploy")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {"", ".py", ".plist", ".service"} and file.is_file()
    ]
    scripts = [file for file in (ROOT / "docs" / "scripts").iterdir() if file.is_file()]

    named = [
        str(file.relative_to(ROOT))
        for file in (*_PAGES, *sources, *scripts)
        if "//localhost" in file.read_text(encoding="utf-8", errors="replace")
    ]

    assert named == []
