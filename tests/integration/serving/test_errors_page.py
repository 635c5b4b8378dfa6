"""docs/errors.md: each error is what the service answers today."""

import re
from collections.abc import Iterator, Mapping

import pytest

from anyclaude.messages.errors import TYPE_BY_STATUS
from tests.integration.errors_page import page
from tests.integration.errors_page.examples import EXAMPLES, Example

_WRITE = f"run `python -m {page.__name__} > docs/errors.md`"


@pytest.fixture(scope="module")
def answered() -> Mapping[str, str]:
    """Every error, asked for once."""
    return page.answers()


@pytest.fixture(scope="module")
def written() -> str:
    return page.PAGE.read_text()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_an_example_is_what_is_answered(
    example: Example, answered: Mapping[str, str], written: str
) -> None:
    """What stands under the example's title came from the service just now."""
    section = written.partition(f"\n### {example.title}\n")[2].partition("\n#")[0]
    assert f"```http\n{answered[example.title]}\n```" in section, _WRITE


def test_the_page_is_the_written_one(answered: Mapping[str, str], written: str) -> None:
    """Nothing on the page comes from elsewhere."""
    assert page.page(answered) == written, _WRITE


def test_every_status_has_an_example(written: str) -> None:
    """Each status of the API that is in our table is shown."""
    shown = {int(status) for status in re.findall(r"^HTTP/1.1 (\d+)$", written, re.MULTILINE)}
    assert shown == {200, 405, 408, 503, *TYPE_BY_STATUS}


def _waits(written: str) -> Iterator[str]:
    for answer in re.findall(r"```http\n(.*?)```", written, re.DOTALL):
        if re.match(r"HTTP/1.1 (429|529)", answer):
            yield answer


def test_who_shall_come_back_is_told_when(written: str) -> None:
    """429 and 529 say whole seconds, no more than a client waits."""
    found = list(_waits(written))
    assert len(found) >= 8
    for answer in found:
        seconds = re.search(r"^retry-after: (\d+)$", answer, re.MULTILINE)
        assert seconds, answer
        assert 1 <= int(seconds[1]) <= 60
