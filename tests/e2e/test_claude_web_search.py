"""The real Claude Code searches the web through a scripted SearXNG."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyclaude.runtime.settings import SearchBackend, SearchSettings
from tests.e2e.claude_code import ClaudeCode
from tests.e2e.namespace import Namespace
from tests.e2e.scripted import Script, ScriptedService, calls, scripted_service, text
from tests.integration.scripted_upstream import ScriptedUpstream, response

_PAGE = {
    "title": "Release notes",
    "url": "https://docs.example.org/notes",
    "content": "Version 7.1 came out on a Tuesday.",
}


@pytest.fixture
def searxng() -> Iterator[ScriptedUpstream]:
    """A search backend on this machine that always finds one page."""
    with ScriptedUpstream(lambda _: [response(200, {"results": [_PAGE]})]) as server:
        yield server


@pytest.fixture
def scripted(namespace: Namespace, searxng: ScriptedUpstream) -> Iterator[ScriptedService]:
    """A front end whose model follows the test's script, with the search backend."""
    search = SearchSettings(backend=SearchBackend.SEARXNG, url=searxng.base_url)
    with scripted_service(namespace, search) as service:
        yield service


def test_a_web_search(
    scripted_claude: ClaudeCode,
    scripted: ScriptedService,
    searxng: ScriptedUpstream,
    project: Path,
) -> None:
    """WebSearch asks the backend, and its result holds the page's address and what it says."""
    script = scripted.play(
        Script(
            calls(("WebSearch", {"query": "version 7.1 release date"})),
            text("It came out on a Tuesday."),
        )
    )
    ended = scripted_claude.ask(
        "When did version 7.1 come out?", project, allowed_tools=["WebSearch"]
    )

    assert ended.succeeded, ended
    (sent,) = searxng.requests
    assert "q=version+7.1+release+date" in sent.path
    (result,) = script.main[1].results
    said = json.dumps(result["content"])
    assert "https://docs.example.org/notes" in said
    assert "Version 7.1 came out on a Tuesday." in said
    assert ended.result == "It came out on a Tuesday."
