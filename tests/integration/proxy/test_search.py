"""Web searches through the front end, with a scripted search backend."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from anyclaude.runtime.settings import SearchBackend, SearchSettings
from tests import worker_events as say
from tests.integration.frontend_process import FrontendProcess, post, route
from tests.integration.scripted_upstream import Request, ScriptedUpstream, response
from tests.integration.scripted_worker import ScriptedWorker

_PAGES = [
    {"title": "Python 3.13", "url": "https://docs.python.org/3.13", "content": "A release."},
    {"title": "No address", "url": "javascript:alert(1)", "content": "Not a page."},
    {"title": "A blog", "url": "https://blog.example.com/a", "content": "“Nice” 🦊"},
    {"title": "", "url": "https://example.org/bare"},
]
_SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
_ASKED = [{"role": "user", "content": "Perform a web search for the query: python  3.13 news"}]


def _body(**fields: Any) -> dict[str, Any]:
    return {"model": "any", "max_tokens": 100, "messages": _ASKED, "tools": [_SEARCH], **fields}


@contextmanager
def _searching(
    answer: Callable[[Request], Any], backend: SearchBackend = SearchBackend.SEARXNG, key: str = ""
) -> Iterator[tuple[FrontendProcess, ScriptedUpstream]]:
    """A front end without any ready worker, and its search backend."""
    with ScriptedUpstream(lambda request: [answer(request)]) as server:
        search = SearchSettings(backend=backend, url=server.base_url, api_key_file=key)
        with FrontendProcess(
            search=search, accept_wait_seconds=0.3, ping_interval_seconds=0.2
        ) as front:
            front.push(route("/nowhere", mode="mlx-lm"))
            yield front, server


def _found(_: Request) -> bytes:
    return response(200, {"results": _PAGES})


@pytest.fixture(scope="module")
def searxng() -> Iterator[tuple[FrontendProcess, ScriptedUpstream]]:
    with _searching(_found) as running:
        yield running


@pytest.mark.parametrize("way", ["stream", "whole"])
def test_a_search_is_answered_with_pages_and_citations(searxng: Any, way: str) -> None:
    """The official client reads the call, the pages, and an excerpt that cites each page."""
    front, server = searxng
    with anthropic.Anthropic(base_url=front.base_url, api_key="any", max_retries=0) as client:
        if way == "stream":
            with client.messages.stream(**_body()) as running:
                message = running.get_final_message()
        else:
            message = client.messages.create(**_body())

    call, result, *texts = message.content
    assert (call.type, call.name, call.input) == (
        "server_tool_use",
        "web_search",
        {"query": "python 3.13 news"},
    )
    assert (result.type, result.tool_use_id) == ("web_search_tool_result", call.id)
    assert [(page.title, page.url) for page in result.content] == [
        ("Python 3.13", "https://docs.python.org/3.13"),
        ("A blog", "https://blog.example.com/a"),
        ("https://example.org/bare", "https://example.org/bare"),
    ]
    cited = [(text.citations[0].url, text.citations[0].cited_text) for text in texts]
    assert cited == [
        ("https://docs.python.org/3.13", "A release."),
        ("https://blog.example.com/a", "“Nice” 🦊"),
    ]
    assert "“Nice” 🦊" in texts[1].text
    assert message.stop_reason == "end_turn"
    assert message.usage.server_tool_use.web_search_requests == 1
    sent = server.requests[-1]
    assert sent.path == "/search?q=python+3.13+news&format=json"


@pytest.mark.parametrize(
    ("fields", "hosts"),
    [
        ({"blocked_domains": ["example.com"]}, ["docs.python.org", "example.org"]),
        ({"allowed_domains": ["python.org"]}, ["docs.python.org"]),
        ({"allowed_domains": ["thon.org"]}, []),
        ({"allowed_domains": "python.org"}, ["docs.python.org", "blog.example.com", "example.org"]),
    ],
)
def test_domains_are_respected(searxng: Any, fields: dict[str, Any], hosts: list[str]) -> None:
    """Pages of other domains than the request admits are left out, whatever the backend finds."""
    front, _ = searxng
    answer = post(front, _body(tools=[{**_SEARCH, **fields}])).json()
    pages = answer["content"][1]["content"]
    assert [page["url"].split("/")[2] for page in pages] == hosts
    assert answer["content"][2:], "something is said in any case"


_BASH = {"name": "Bash", "input_schema": {"type": "object"}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tools", [[_SEARCH, _BASH], [_BASH, _SEARCH], [_BASH]], ids=len)
def test_a_search_beside_other_tools_is_not_run(searxng: Any, tools: Any, stream: bool) -> None:
    """The model answers, with its other tools, and the response says what was not served."""
    front, server = searxng
    before = len(server.requests)
    with ScriptedWorker(lambda _: say.text_answer("By the model.")) as model:
        front.push(route(model.socket_path))
        answer = post(front, _body(tools=tools, stream=stream))
        front.push(route("/nowhere"))
    assert answer.status_code == 200
    assert "By the model." in answer.text
    told = answer.headers.get("x-anyclaude-not-served")
    assert told == ("web_search_20250305" if _SEARCH in tools else None)
    assert len(server.requests) == before


def test_a_search_in_an_unknown_mode_is_refused(searxng: Any) -> None:
    """It is the same error as of any other request, and nothing is searched."""
    front, server = searxng
    before = len(server.requests)
    refused = post(front, _body(), **{"x-anyclaude-mode": "warp"})
    assert (refused.status_code, len(server.requests)) == (400, before)
    assert "There is no mode 'warp'" in refused.json()["error"]["message"]


def test_nothing_is_asked_without_words(searxng: Any) -> None:
    """A last user message without text, such as an image, is no query."""
    front, server = searxng
    before = len(server.requests)
    image = {"type": "image", "source": {"type": "url", "url": "https://x.org/a.png"}}
    answer = post(front, _body(messages=[{"role": "user", "content": [image]}])).json()
    assert "no words" in answer["content"][2]["text"]
    assert len(server.requests) == before


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (response(403, b"Forbidden"), "add `json` to search.formats"),
        (response(500, b"oops"), "status 500"),
        (response(200, b"<html>"), "did not answer in JSON"),
        (response(200, {"results": None}), "The search found nothing"),
        (response(200, ["a list"]), "The search found nothing"),
    ],
)
def test_a_failed_search_says_why(answer: bytes, why: str) -> None:
    """The client gets a whole message with an error code of the API, and the reason in words."""
    with _searching(lambda _: answer) as (front, _):
        got = post(front, _body()).json()
        result, text = got["content"][1:]
        failed = result["content"] != []
        assert not failed or result["content"]["error_code"] == "unavailable"
        assert why in text["text"]


def test_pings_while_a_search_runs() -> None:
    """A stream that waits for a slow backend is not silent."""
    may_answer = threading.Event()

    def slow(_: Request) -> bytes:
        assert may_answer.wait(60)
        return response(200, {"results": _PAGES})

    with (
        _searching(slow) as (front, _),
        httpx.stream(
            "POST", f"{front.base_url}/v1/messages", json=_body(stream=True), timeout=60
        ) as answer,
    ):
        pieces = answer.iter_text()
        assert all("ping" in next(pieces) for _ in range(2))
        may_answer.set()
        assert "web_search_tool_result" in "".join(pieces)


def test_a_backend_that_is_not_running_is_named() -> None:
    """Nothing listens at the address: the message says which setting to look at."""
    search = SearchSettings(backend=SearchBackend.SEARXNG, url="http://127.0.0.1:9")
    with FrontendProcess(search=search) as front:
        front.push(route("/nowhere", mode="mlx-lm"))
        text = post(front, _body()).json()["content"][2]["text"]
    assert "searxng at 127.0.0.1 does not answer" in text
    assert "search.url" in text


@pytest.mark.parametrize("backend", [SearchBackend.BRAVE, SearchBackend.TAVILY])
def test_services_with_a_key(backend: SearchBackend, tmp_path: Path) -> None:
    """Brave and Tavily get the key of the file, and their pages are read."""
    item = {"title": "T", "url": "https://x.org", "description": "Words.", "content": "Words."}
    documents = {"web": {"results": [item]}, "results": [item]}
    key = tmp_path / "key"
    key.write_text("secret-key\n")
    with _searching(lambda _: response(200, documents), backend, str(key)) as (front, server):
        content = post(front, _body()).json()["content"]
        assert [page["url"] for page in content[1]["content"]] == ["https://x.org"]
        assert "Words." in content[2]["text"]
        sent = server.requests[-1]
        if backend is SearchBackend.BRAVE:
            assert sent.path.startswith("/res/v1/web/search?q=python+3.13+news&count=8")
            assert sent.header("x-subscription-token") == "secret-key"
        else:
            assert json.loads(sent.body) == {"query": "python 3.13 news", "max_results": 8}
            assert sent.header("authorization") == "Bearer secret-key"
        assert "secret-key" not in front.log_text()
        key.unlink()
        assert "api_key_file" in post(front, _body()).json()["content"][2]["text"]
