"""What a model that reads text only is shown of each block."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from anyclaude.messages.documents import limit_documents
from anyclaude.messages.errors import ApiError
from anyclaude.messages.readable import block_text, plain_blocks
from anyclaude.runtime.settings import DocumentSettings
from tests.models.pdf import pdf_file

Block = dict[str, Any]


def pdf(*pages: str, password: str = "") -> str:
    """A PDF file with one line of text on each page, in base64."""
    return encoded(pdf_file(pages, password=password))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def document(source: Any, **fields: str) -> Block:
    return {"type": "document", "source": source, **fields}


def in_base64(data: str, media_type: str = "application/pdf") -> Block:
    return document({"type": "base64", "media_type": media_type, "data": data})


DOCUMENTS = {
    "text": (document({"type": "text", "data": "the port is 7"}), "the port is 7"),
    "string": (document({"type": "content", "content": "words"}), "words"),
    "blocks": (
        document({"type": "content", "content": [{"type": "text", "text": "words"}]}),
        "words",
    ),
    "title and context": (
        document({"type": "text", "data": "words"}, title="A.md", context="notes"),
        "A.md\n\nnotes\n\nwords",
    ),
    "text file": (in_base64(encoded("größe".encode()), "text/markdown"), "größe"),
    "old text file": (
        in_base64(encoded("größe".encode("latin-1")), "text/plain"),
        "gr\ufffd\ufffde",
    ),
    "json file": (in_base64(encoded(b'{"a": 1}'), "application/json"), '{"a": 1}'),
    "pdf": (in_base64(pdf("Hello", "World")), "[Page 1]\nHello\n\n[Page 2]\nWorld"),
    "pdf under another type": (in_base64(pdf("Hello"), "application/octet-stream"), "Hello"),
    "pdf without text": (in_base64(pdf("")), "without text"),
    "pdf with a password": (in_base64(pdf("Hello", password="secret")), "needs a password"),
    "damaged pdf": (in_base64(encoded(b"%PDF-1.7 nothing")), "cannot be read"),
    "no pdf": (in_base64(encoded(b"words")), "cannot be read"),
    "no base64": (in_base64("a"), "not valid base64"),
    "binary": (in_base64(encoded(b"\x00\xff\xfe"), "application/zip"), "cannot be read as text"),
    "address": (document({"type": "url", "url": "https://x/a.pdf"}), "https://x/a.pdf"),
    "file": (document({"type": "file", "file_id": "file_1"}), "file_1"),
    "next year's": (document({"type": "stream"}), "content is missing"),
    "nothing": ({"type": "document"}, "content is missing"),
}


@pytest.mark.parametrize(("block", "expected"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_documents(block: Block, expected: str) -> None:
    """A document is read as text, or a sentence says why not."""
    text = block_text(block, "here")
    assert expected in text if not expected.endswith("words") else text == expected


def test_a_long_pdf_is_read_in_part() -> None:
    """A PDF with too many pages or too much content is read up to the limit, and says so."""
    many = block_text(in_base64(pdf(*[f"line {i}" for i in range(601)])), "here")
    assert "[Page 600]" in many
    assert many.endswith("[The pages from 601 on are left out: the document is too long.]")
    large = block_text(in_base64(pdf("first", "x" * 9_000_000)), "here")
    assert large.startswith("[Page 1]\nfirst")
    assert large.endswith("[The pages from 2 on are left out: the document is too long.]")


@pytest.fixture
def limited() -> Iterator[Callable[..., None]]:
    """Sets bounds other than the defaults, which hold again afterwards."""
    yield lambda **fields: limit_documents(DocumentSettings(**fields))
    limit_documents(DocumentSettings())


@pytest.mark.parametrize(
    ("bounds", "read"),
    [
        ({}, 3),
        ({"pdf_max_pages": 2}, 2),
        ({"pdf_max_pages": 3}, 3),
        ({"pdf_max_content_bytes": 80}, 2),
        ({"pdf_max_content_bytes": 1}, 0),
        ({"pdf_max_characters": 8}, 1),
        ({"pdf_max_characters": 15}, 3),
        ({"cached_pdfs": 0}, 3),
    ],
    ids=str,
)
def test_the_settings_bound_a_pdf(
    limited: Callable[..., None], bounds: dict[str, int], read: int
) -> None:
    """Each bound of the settings ends a document, and the text says at which page."""
    block = in_base64(pdf("first", "later", "third"))
    whole = block_text(block, "here")
    limited(**bounds)
    text = block_text(block, "here")
    kept = whole.split("\n\n")[:read]
    rest = [f"[The pages from {read + 1} on are left out: the document is too long.]"]
    assert text == "\n\n".join(kept if read == 3 else kept + rest)


def result(kind: str, content: Any, **fields: Any) -> Block:
    return {
        "type": f"{kind}_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": content,
        **fields,
    }


def ran(kind: str, **fields: Any) -> Block:
    whole = {"stdout": "", "stderr": "", "return_code": 0, "content": [], **fields}
    return result(kind, {"type": f"{kind}_result", **whole})


def failed(kind: str, code: str) -> Block:
    return result(kind, {"type": f"{kind}_tool_result_error", "error_code": code})


EDITED = "text_editor_code_execution"
RESULTS = {
    "search": (
        result(
            "web_search",
            [
                {
                    "type": "web_search_result",
                    "title": "T",
                    "url": "https://x",
                    "encrypted_content": "e",
                }
            ],
        ),
        "T https://x",
    ),
    "failed search": (
        failed("web_search", "max_uses_exceeded"),
        "[The tool web_search failed: max_uses_exceeded]",
    ),
    "no page": (result("web_search", []), "[The tool web_search returned nothing.]"),
    "fetch": (
        result(
            "web_fetch",
            {
                "type": "web_fetch_result",
                "url": "https://x",
                "content": document({"type": "text", "data": "words"}, title="T"),
            },
        ),
        "https://x\n\nT\n\nwords",
    ),
    "fetched pdf": (
        result(
            "web_fetch",
            {"type": "web_fetch_result", "url": "https://x", "content": in_base64(pdf("Hello"))},
        ),
        "https://x\n\n[Page 1]\nHello",
    ),
    "code": (ran("code_execution", stdout="4\n"), "4"),
    "failed code": (
        ran("code_execution", stderr="No.\n", return_code=1),
        "stderr:\nNo.\nreturn code: 1",
    ),
    "code that made a file": (
        ran("code_execution", content=[{"type": "code_execution_output", "file_id": "file_1"}]),
        "file: file_1",
    ),
    "encrypted code": (
        result(
            "code_execution",
            {"type": "encrypted_code_execution_result", "encrypted_stdout": "e", "return_code": 0},
        ),
        "[Its output is encrypted for the server that ran it.]",
    ),
    "bash": (ran("bash_code_execution", stdout="a.txt\n"), "a.txt"),
    "silent bash": (ran("bash_code_execution"), "[It wrote nothing.]"),
    "view": (
        result(EDITED, {"type": f"{EDITED}_view_result", "file_type": "text", "content": "line"}),
        "line",
    ),
    "create": (
        result(EDITED, {"type": f"{EDITED}_create_result", "is_file_update": False}),
        "[The file was created.]",
    ),
    "replace": (
        result(EDITED, {"type": f"{EDITED}_str_replace_result", "lines": ["-a", "+b"]}),
        "-a\n+b",
    ),
    "failed edit": (
        failed(EDITED, "file_not_found"),
        "[The tool text_editor_code_execution failed: file_not_found]",
    ),
    "tool search": (
        result(
            "tool_search",
            {
                "type": "tool_search_tool_search_result",
                "tool_references": [{"type": "tool_reference", "tool_name": "Grep"}],
            },
        ),
        "Grep",
    ),
    "advice": (result("advisor", {"type": "advisor_result", "text": "Test it."}), "Test it."),
    "hidden advice": (
        result("advisor", {"type": "advisor_redacted_result", "encrypted_content": "e"}),
        "[Its output is encrypted for the server that ran it.]",
    ),
    "mcp text": (result("mcp", "words"), "words"),
    "mcp blocks": (result("mcp", [{"type": "text", "text": "words"}]), "words"),
    "mcp failure": (result("mcp", "no such page", is_error=True), "Error: no such page"),
    "a tool of next year": (
        result("hologram", {"type": "hologram_result", "content": [{"text": "words"}]}),
        "words",
    ),
    "nothing": (result("web_fetch", None), "[The tool web_fetch returned nothing.]"),
}


@pytest.mark.parametrize(("block", "expected"), RESULTS.values(), ids=RESULTS)
def test_results_of_server_tools(block: Block, expected: str) -> None:
    """The result of a tool that another server ran is rendered as what it says."""
    assert block_text(block, "here") == expected


def image(**source: str) -> Block:
    return {"type": "image", "source": source}


OTHERS = {
    "image": (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png"}},
        "image/png",
    ),
    "image at an address": (
        {"type": "image", "source": {"type": "url", "url": "https://x"}},
        "https://x",
    ),
    "image of a file": (
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        "does not see it",
    ),
    "image without source": ({"type": "image"}, "does not see it"),
    "upload": ({"type": "container_upload", "file_id": "file_1"}, "file_1"),
    "words of next year": ({"type": "connector_text", "text": "words"}, "words"),
    "nested words": ({"type": "card", "content": [{"type": "x", "text": "words"}]}, "words"),
    "no words": ({"type": "hologram", "data": "AAAA"}, "type hologram"),
    "odd words": ({"type": "hologram", "text": 7, "content": {"text": ["words"]}}, "words"),
}


@pytest.mark.parametrize(("block", "expected"), OTHERS.values(), ids=OTHERS)
def test_blocks_that_are_no_text(block: Block, expected: str) -> None:
    """An image and a block of an unknown type become their words, or a sentence in their place."""
    assert expected in block_text(block, "here")


@pytest.mark.parametrize(
    "kind", ["server_tool_use", "mcp_tool_use", "redacted_thinking", "fallback", "mcp_tool_listing"]
)
def test_blocks_that_say_nothing(kind: str) -> None:
    """Calls of server tools and settings are no text for the model."""
    assert block_text({"type": kind, "data": "x", "input": {"q": "x"}}, "here") == ""


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text", "text": 7},
        {"type": "tool_reference", "tool_name": []},
        {"type": "search_result", "title": {}},
        {"type": "search_result", "content": 7},
        {"type": "compaction", "content": 7},
    ],
    ids=str,
)
def test_malformed_blocks_are_named(block: Block) -> None:
    """A block that the API would refuse as malformed is refused with its place."""
    with pytest.raises(ApiError) as caught:
        block_text(block, "messages.1")
    assert caught.value.message.startswith("messages.1.")


def test_plain_blocks() -> None:
    """A server that knows few blocks gets the others as text, within tool results too."""
    seen = image(type="url", url="https://x")
    letter = document({"type": "text", "data": "words"})
    nested = {"type": "tool_result", "tool_use_id": "t", "content": [seen, letter]}
    blocks = [seen, letter, {"type": "server_tool_use"}, nested]
    words = {"type": "text", "text": "words"}
    known = frozenset({"text", "image", "tool_result"})
    assert list(plain_blocks(blocks, known)) == [
        seen,
        words,
        {**nested, "content": [seen, words]},
    ]
