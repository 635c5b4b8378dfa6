"""Every error in docs/errors.md is what the service sends today."""

import functools
import re
from collections.abc import Callable, Iterator

import pytest

from anyclaude.messages.errors import TYPE_BY_STATUS
from tests.integration.errors_page import page
from tests.integration.errors_page.examples import EXAMPLES, Example
from tests.integration.errors_page.stage import open_stage

_WRITE = f"run `python -m {page.__name__} > docs/errors.md`"


Answer = Callable[[Example], str]


@pytest.fixture(scope="module")
def answer() -> Iterator[Answer]:
    """The service's response to an example, which is caused once."""
    with open_stage() as stage:
        yield functools.cache(lambda example: example.ask(stage))


@pytest.fixture(scope="module")
def written() -> str:
    return page.PAGE.read_text()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_an_example_is_the_current_response(example: Example, answer: Answer, written: str) -> None:
    """The page shows the service's current response."""
    section = written.partition(f"\n### {example.title}\n")[2].partition("\n#")[0]
    assert f"```http\n{answer(example)}\n```" in section, _WRITE


def test_the_page_is_the_generated_one(answer: Answer, written: str) -> None:
    """The page is exactly the generated one."""
    assert page.page({example.title: answer(example) for example in EXAMPLES}) == written, _WRITE


def test_every_status_has_an_example(written: str) -> None:
    """Each status of the API in our table is on the page."""
    shown = {int(status) for status in re.findall(r"^HTTP/1.1 (\d+)$", written, re.MULTILINE)}
    assert shown == {200, 405, 408, 415, 503, *TYPE_BY_STATUS}


def _waits(written: str) -> Iterator[str]:
    for answer in re.findall(r"```http\n(.*?)```", written, re.DOTALL):
        if re.match(r"HTTP/1.1 (429|529)", answer):
            yield answer


def test_errors_to_retry_have_a_delay(written: str) -> None:
    """429 and 529 have a retry-after that clients accept."""
    found = list(_waits(written))
    assert len(found) >= 8
    for answer in found:
        seconds = re.search(r"^retry-after: (\d+)$", answer, re.MULTILINE)
        assert seconds, answer
        assert 1 <= int(seconds[1]) <= 60
