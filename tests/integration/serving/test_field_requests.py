"""Requests as people send them to servers in the field: each kind with its variants.

What such a request contains decides the right answer: it is served, or it is refused as the API
does. It never fails in the service, and it never loses a part in silence. docs/clients.md lists
where the service deliberately differs from the API. Schemas of tools have a corpus of their own
(`tests/models/odd_schemas.py`), and so has HTTP (`tests/integration/proxy/test_http.py`).
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance import bodies as b
from tests.conformance.endpoint import Endpoint, accepted, check_refusal, prompt_tokens
from tests.integration.service import Service
from tests.models.pdf import pdf_file
from tests.models.saved import save

Json = dict[str, Any]
WORDS = "release notes: the port is 7"
INVALID = (400, "invalid_request_error")


@pytest.fixture(scope="module", params=["json_tools", "qwen3_coder"])
def notation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    """A model that writes calls as JSON, and one that writes them with tags."""
    model = tmp_path_factory.mktemp("models") / "tiny"
    template = "qwen3_coder" if request.param == "qwen3_coder" else "qwen3"
    settings = save(model, template=template, endless=True) / "tokenizer_config.json"
    known = json.loads(settings.read_text()) | {"tool_parser_type": request.param}
    settings.write_text(json.dumps(known))
    with Service(model=model) as service:
        endpoint = Endpoint(service.ready().base_url, "any", "any")
        with endpoint.http:
            yield endpoint


@pytest.fixture(scope="module")
def endpoint(demo: Service) -> Iterator[Endpoint]:
    """The demo model."""
    made = Endpoint(demo.base_url, "any", "any")
    with made.http:
        yield made


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def document(source: Any, **more: Any) -> Json:
    return {"type": "document", "source": source, **more}


def coded(media_type: str, data: bytes) -> Json:
    return {"type": "base64", "media_type": media_type, "data": encoded(data)}


def plain(words: str) -> Json:
    return {"type": "text", "media_type": "text/plain", "data": words}


def turn_with(block: Json, place: str) -> list[Json]:
    """A conversation that has `block` at one of the places where a client may put it."""
    question = b.text("What is this?")
    if place == "user":
        return [b.user([block, question])]
    if place == "tool_result":
        return [*b.TOOL_LOOP[:-1], b.user([b.result("toolu_1", [block])])]
    return [b.user("Hi."), b.assistant([block]), b.user([question])]


READ = {
    "text": document(plain(WORDS)),
    "title and context": document(plain(WORDS), title="A.md", context="from the wiki"),
    "null title": document(plain(WORDS), title=None, context=None),
    "citations": document(plain(WORDS), citations={"enabled": True}),
    "cached": document(plain(WORDS), cache_control={"type": "ephemeral"}),
    "markdown": document({**plain(WORDS), "media_type": "text/markdown"}),
    "content": document({"type": "content", "content": WORDS}),
    "content blocks": document({"type": "content", "content": [b.text(WORDS)]}),
    "coded text": document(coded("text/plain", WORDS.encode())),
    "coded csv": document(coded("text/csv", WORDS.encode())),
    "coded json": document(coded("application/json", WORDS.encode())),
    "coded with a charset": document(coded("text/plain; charset=utf-8", WORDS.encode())),
    "latin letters": document(coded("text/plain", "gr\u00fc\u00dfe".encode("latin-1"))),
    "pdf": document(coded("application/pdf", pdf_file([WORDS]))),
    "search result": {
        "type": "search_result",
        "source": "https://x.example",
        "title": "A",
        "content": [b.text(WORDS)],
    },
}
NAMED = {
    "address": document({"type": "url", "url": "https://x.example/a.pdf"}),
    "uploaded": document({"type": "file", "file_id": "file_1"}),
    "broken pdf": document(coded("application/pdf", b"%PDF-1.7 nothing")),
    "empty pdf": document(coded("application/pdf", b"")),
    "office": document(coded("application/vnd.ms-excel", b"\xd0\xcf\x11\xe0")),
    "no base64": document({"type": "base64", "media_type": "application/pdf", "data": "!?"}),
    "next year": document({"type": "stream", "id": "s_1"}),
    "empty": document(plain("")),
}


@pytest.mark.parametrize("place", ["user", "tool_result", "assistant"])
@pytest.mark.parametrize("form", READ)
def test_documents_are_read(endpoint: Endpoint, form: str, place: str) -> None:
    """The words of a document are part of the prompt, wherever it stands."""
    counted = endpoint.count(messages=turn_with(READ[form], place))
    assert counted > endpoint.count(messages=turn_with(document(plain("")), place))


@pytest.mark.parametrize("place", ["user", "tool_result"])
@pytest.mark.parametrize("form", NAMED)
def test_other_documents_refuse_nothing(endpoint: Endpoint, form: str, place: str) -> None:
    """A document that cannot be read leaves the conversation alive."""
    messages = turn_with(NAMED[form], place)
    usage = endpoint.create(messages=messages, max_tokens=1)["usage"]
    assert prompt_tokens(usage) == endpoint.count(messages=messages)


FLAG = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
}
FORMATS = {
    "plain": {"schema": FLAG},
    "with a name": {"name": "flag", "schema": FLAG},
    "strict": {"schema": FLAG, "strict": True},
    "by reference": {"schema": {"$ref": "#/$defs/F", "$defs": {"F": FLAG}}},
    "one of": {"schema": {"anyOf": [FLAG]}},
    "all of": {"schema": {"allOf": [FLAG]}},
}
BAD_FORMATS = {
    "no schema": {"type": "json_schema"},
    "a list as schema": {"type": "json_schema", "schema": [FLAG]},
    "another type": {"type": "json_object"},
    "no type": {"schema": FLAG},
    "a word": "json",
    "a wrong property": {"type": "json_schema", "schema": {"type": "object", "properties": 7}},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_the_old_output_format(notation: Endpoint, form: str, stream: bool) -> None:
    """`output_format`, the name of the beta, is held to like `output_config.format`."""
    asked = {"output_format": {"type": "json_schema", **FORMATS[form]}, "max_tokens": 200}
    if stream:
        content = notation.stream(**asked).message.content
    else:
        content = notation.create(**asked)["content"]
    answer = json.loads("".join(block.get("text", "") for block in content))
    assert isinstance(answer["a"], bool)


@pytest.mark.parametrize("form", BAD_FORMATS)
def test_an_output_format_that_cannot_be_held_to(endpoint: Endpoint, form: str) -> None:
    """It is refused by its name, and no free text is written in its place."""
    refused = endpoint.post(output_format=BAD_FORMATS[form])
    assert "format" in check_refusal(refused, *INVALID)


TOOLSET = {"type": "mcp_toolset", "mcp_server_name": "docs"}
SERVER = {"type": "url", "url": "https://mcp.example/", "name": "docs"}
SERVED_ELSEWHERE = {
    "toolset": ([TOOLSET], [SERVER]),
    "configured toolset": (
        [{**TOOLSET, "default_config": {"enabled": False}, "configs": {"a": {"enabled": True}}}],
        [SERVER],
    ),
    "two toolsets": ([TOOLSET, {**TOOLSET, "mcp_server_name": "b"}], [SERVER]),
    "toolset of no server": ([{"type": "mcp_toolset"}], None),
    "server only": ([], [SERVER]),
    "cached toolset": ([{**TOOLSET, "cache_control": {"type": "ephemeral"}}], [SERVER]),
    "code execution": ([{"type": "code_execution_20250825", "name": "code_execution"}], None),
    "fetch": ([{"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 1}], None),
    "search": ([{"type": "web_search_20250305", "name": "web_search"}], None),
    "newer search": ([{"type": "web_search_20260209", "name": "web_search"}], None),
    "tool search": ([{"type": "tool_search_tool_bm25_20251119", "name": "tool_search"}], None),
    "advisor": ([{"type": "advisor_20260301", "name": "advisor", "model": "m"}], None),
}


@pytest.mark.parametrize(
    "choice", [None, {"type": "any"}, {"type": "tool", "name": "Bash"}], ids=str
)
@pytest.mark.parametrize("form", SERVED_ELSEWHERE)
def test_tools_of_a_service_elsewhere(endpoint: Endpoint, form: str, choice: Any) -> None:
    """They are left out by name, beside a tool of the client's own, which can be called."""
    tools, servers = SERVED_ELSEWHERE[form]
    fields = {"tools": [*tools, b.BASH], "mcp_servers": servers}
    asked = {**fields, "tool_choice": choice, "max_tokens": 200 if choice else 1}
    response = endpoint.post(**asked)
    message = accepted(response)
    if choice:
        assert [use["name"] for use in message["content"]] == ["Bash"]
    told = response.headers["x-anyclaude-not-served"]
    assert all((tool.get("name") or tool["type"]) in told for tool in tools), told
    assert ("mcp_servers docs" in told) == bool(servers)
    assert endpoint.count(**fields) == endpoint.count(tools=[b.BASH])


@pytest.mark.parametrize("name", ["web_search", "docs", "mcp_toolset"])
def test_a_tool_that_nobody_runs_cannot_be_demanded(endpoint: Endpoint, name: str) -> None:
    """The call could not be made, so the request is refused, and says which tool it means."""
    search = {"type": "web_search_20250305", "name": "web_search"}
    choice = {"type": "tool", "name": name}
    refused = endpoint.post(tools=[search, TOOLSET, b.BASH], tool_choice=choice)
    assert name in check_refusal(refused, *INVALID)


TAKEN_NAMES = [
    "a",
    "my.tool",
    "a/b",
    "a b",
    "gr\u00f6\u00dfe",
    "\u691c\u7d22",
    "a:b",
    "a@b",
    "a+b",
    "0",
]
TAKEN_NAMES += ["-", "_", "mcp__a-b__c.d", "x" * 128, "x" * 256]
REFUSED_NAMES = [
    'q"t',
    "a\\b",
    "a\nb",
    "a\tb",
    "",
    " ",
    " a",
    "a ",
    "<tool_call>",
    "a{b",
    "\U0001f98a",
    "a=b",
]
REFUSED_NAMES += ["x" * 257, "a\u200bb", "a\u0000b", "a>b", "a,b", "a(b)"]


@pytest.mark.parametrize("name", TAKEN_NAMES, ids=ascii)
def test_tool_names_that_are_taken(notation: Endpoint, name: str) -> None:
    """A call comes back under the name that the client gave its tool."""
    schema = {"type": "object", "properties": {"c": {"enum": ["Q"]}}, "required": ["c"]}
    tool = {"name": name, "input_schema": {**schema, "additionalProperties": False}}
    choice = {"type": "tool", "name": name}
    (use,) = notation.create(tools=[b.BASH, tool], tool_choice=choice, max_tokens=500)["content"]
    assert (use["name"], use["input"]) == (name, {"c": "Q"})


@pytest.mark.parametrize("name", REFUSED_NAMES, ids=ascii)
def test_tool_names_that_are_refused(endpoint: Endpoint, name: str) -> None:
    """Names that the notation of a call could not carry are refused with their place."""
    tool = {"name": name, "input_schema": {"type": "object"}}
    assert "tools.0" in check_refusal(endpoint.post(tools=[tool]), *INVALID)


LONG = {"type": "string", "minLength": 5000}
CUT_CALLS = {
    "text": LONG,
    "list": {"type": "array", "items": {"type": "integer", "minimum": 1000}, "minItems": 3000},
    "object": {"type": "object", "properties": {"x": LONG}, "required": ["x"]},
    "list of objects": {
        "type": "array",
        "minItems": 60,
        "items": {"type": "object", "properties": {"x": {"enum": ["abc"]}}, "required": ["x"]},
    },
    "text or list": {"anyOf": [LONG, {"type": "array", "items": LONG, "minItems": 9}]},
}


@pytest.mark.parametrize("limit", [1, 9, 21, 120])
@pytest.mark.parametrize("form", CUT_CALLS)
def test_a_call_that_is_cut(notation: Endpoint, form: str, limit: int) -> None:
    """It never looks whole, its markup is no text, and stream and whole message agree."""
    schema = {"type": "object", "properties": {"v": CUT_CALLS[form]}, "required": ["v"]}
    tool = {"name": "t", "input_schema": {**schema, "additionalProperties": False}}
    choice = {"type": "tool", "name": "t"}
    asked = {"tools": [tool], "tool_choice": choice, "max_tokens": limit, "temperature": 0}
    whole, streamed = notation.create(**asked), notation.stream(**asked)
    assert whole["stop_reason"] == streamed.message.stop_reason == "max_tokens"
    kinds = [event["type"] for event in streamed.events]
    assert "content_block_stop" not in kinds
    assert all(block["type"] == "tool_use" for block in whole["content"])
    assert len(whole["content"]) == kinds.count("content_block_start")
    assert whole["usage"]["output_tokens"] == limit
