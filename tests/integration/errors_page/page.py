"""Writes docs/errors.md from the service's responses.

python -m tests.integration.errors_page.page > docs/errors.md
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Final

from anyclaude.messages.errors import TYPE_BY_STATUS
from tests.checkout import ROOT
from tests.integration.errors_page.examples import CHAPTERS, EXAMPLES, Example
from tests.integration.errors_page.stage import open_stage

PAGE: Final = ROOT / "docs" / "errors.md"

_HEAD: Final = """\
# Errors

Every error that a client can get: the response, when it occurs and what to do. `python -m
tests.integration.errors_page.page` writes this page by causing each error in a real service, and a
test checks that it is up to date. Ids, addresses and paths are replaced by fixed ones.

- Every error is JSON in the Messages API's envelope.
- Every response has a `request-id`. Use it to find the request in `anyclaudectl requests` and in
  the logs.
- A 429 or 529 always has `retry-after`: the number of whole seconds to wait.
- `x-should-retry: false` means that the same request would fail again.
- After a stream has started with 200, an error is an event, and it is the last one.
- In mode `claude`, and from any server that speaks the Messages API, errors arrive exactly as that
  server wrote them.
- A body is read as JSON whatever its `content-type` is.

| Status | `error.type` |
|---|---|
"""
# The API has no error type for these.
_BESIDE: Final = {
    405: "invalid_request_error",
    408: "timeout_error",
    415: "invalid_request_error",
    503: "overloaded_error` or `api_error",
}


def answers() -> dict[str, str]:
    """The responses by the title of their example."""
    with open_stage() as stage:
        return {example.title: example.ask(stage) for example in EXAMPLES}


def page(answered: Mapping[str, str]) -> str:
    """The whole document."""
    return _HEAD + "\n".join(_lines(answered)) + "\n"


def _lines(answered: Mapping[str, str]) -> Iterator[str]:
    for status, kind in sorted((TYPE_BY_STATUS | _BESIDE).items()):
        yield f"| {status} | `{kind}` |"
    for chapter in CHAPTERS:
        yield f"\n## {chapter.title}"
        for example in chapter.examples:
            yield from _section(example, answered[example.title])


def _section(example: Example, answer: str) -> Iterator[str]:
    yield f"\n### {example.title}\n"
    yield example.when
    yield f"\n```http\n{answer}\n```\n"
    yield f"**Do:** {example.do}"


if __name__ == "__main__":
    sys.stdout.write(page(answers()))
