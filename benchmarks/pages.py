"""Writes what a benchmark measured into its section of a documentation page."""

from pathlib import Path


def write_section(page: Path, name: str, text: str) -> None:
    """Replaces the text between the marks `<!-- NAME -->` and `<!-- NAME: end -->` of the page."""
    begin, end = f"<!-- {name} -->\n", f"<!-- {name}: end -->\n"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no lines {begin.strip()} and {end.strip()}")
    page.write_text(before + begin + text + end + after)


def section(page: Path, name: str) -> str:
    """The text between these marks."""
    return page.read_text().partition(f"<!-- {name} -->\n")[2].partition(f"<!-- {name}: end -->")[0]
