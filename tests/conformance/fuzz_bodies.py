"""Bodies for the fuzz: grown from the schema, or recorded ones with broken bytes.

Whatever they hold, `max_tokens` stays small, so that thousands take minutes. A part of them is
compressed, rightly or not.
"""

import base64
import gzip
import json
import re
import sys
import zlib
from dataclasses import dataclass, field
from typing import Any, Final

import brotli
from hypothesis import strategies as st

from tests.conformance import bodies as b
from tests.conformance.endpoint import COUNT, MESSAGES
from tests.models.pdf import pdf_file

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_SMALL_LIMIT: Final = 4
# Any number of three characters and more, in any notation.
_LARGE_LIMIT: Final = re.compile(rb'("max_tokens"\s*:\s*)[-+0-9.eE]{3,}')

Draw = st.DrawFn


@dataclass(frozen=True)
class Shot:
    """One request to send."""

    path: str
    raw: bytes
    headers: dict[str, str] = field(default_factory=dict)
    # Whether the client leaves after the first piece of the response.
    leave: bool = False


_WORDS = st.one_of(
    st.sampled_from(["", "hi", " ", "\n\n", b.MARKUP, "x-anthropic-billing-header: a", "{{ 7 }}"]),
    st.text(max_size=30),
    st.text(alphabet="a🦊素\u0000\u200d\ufffd ", max_size=12),
)
_JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=5,
)
_IDS = st.sampled_from(["toolu_1", "toolu_2", "", "x" * 300, "ünï"])
_CACHE_CONTROL = st.fixed_dictionaries(
    {}, optional={"cache_control": st.just({"type": "ephemeral"}), "extra": _JUNK}
)


# Not a number: those are drawn from the ends of their range more often than chance has it.
_MOSTLY: Final = st.sampled_from((True,) * 60 + (False,))


def _rarely(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly `good`, sometimes any other value."""
    return _MOSTLY.flatmap(lambda usual: good if usual else _JUNK)


def _block(kind: str, **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named = {name: _rarely(part) for name, part in parts.items()}
    whole = st.fixed_dictionaries({"type": st.just(kind), **named})
    missing = st.fixed_dictionaries({"type": st.just(kind)}, optional=named)
    return st.builds(lambda block, more: block | more, whole | missing, _CACHE_CONTROL)


_TEXT_BLOCKS = st.lists(_block("text", text=_WORDS), max_size=3)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


_PDF: Final = pdf_file(("one page",))
# Files that are what they say, and files that are not.
_FILES = st.sampled_from([_PDF, _PDF[:300], _PDF[200:], b"%PDF", b"words", b"\xff\x00", b""])
_MEDIA_TYPES = st.sampled_from(["application/pdf", "text/plain", "image/png", "x/y", ""])
_SOURCES = st.one_of(
    _block("base64", media_type=_MEDIA_TYPES, data=_FILES.map(_base64) | _WORDS),
    _block("text", media_type=_MEDIA_TYPES, data=_WORDS),
    _block("content", content=_WORDS | _TEXT_BLOCKS),
    _block("url", url=_WORDS),
    _block("file", file_id=_WORDS),
)
_MEDIA_BLOCKS = st.one_of(
    _block("image", source=_SOURCES),
    _block("document", source=_SOURCES, title=_WORDS, context=_WORDS, citations=_JUNK),
    _block("container_upload", file_id=_WORDS),
)
_RESULT_PARTS = st.one_of(
    _block("web_search_result", title=_WORDS, url=_WORDS, encrypted_content=_WORDS),
    _block("web_fetch_result", url=_WORDS, content=_MEDIA_BLOCKS),
    _block(
        "bash_code_execution_result",
        stdout=_WORDS,
        stderr=_WORDS,
        return_code=st.integers(),
        content=st.lists(_block("bash_code_execution_output", file_id=_WORDS), max_size=2),
    ),
    _block("text_editor_code_execution_str_replace_result", lines=st.lists(_WORDS, max_size=3)),
    _block(
        "tool_search_tool_search_result",
        tool_references=st.lists(_block("tool_reference", tool_name=_WORDS), max_size=2),
    ),
    _block("web_search_tool_result_error", error_code=_WORDS, error_message=_WORDS),
    _block("advisor_redacted_result", encrypted_content=_WORDS),
    _block("a_result_of_next_year", text=_WORDS),
)
_SERVER_RESULTS = st.sampled_from(
    [
        *("web_search", "web_fetch", "code_execution", "bash_code_execution"),
        *("text_editor_code_execution", "tool_search", "advisor", "mcp", "of_next_year"),
    ]
).flatmap(
    lambda tool: _block(
        f"{tool}_tool_result",
        tool_use_id=_IDS,
        content=_RESULT_PARTS | st.lists(_RESULT_PARTS, max_size=3),
        is_error=st.booleans(),
    )
)
_UNKNOWN_BLOCKS = st.one_of(
    _block("a_block_of_next_year", text=_WORDS, content=_JUNK),
    _block("fallback", model=_JUNK),
    _block("mcp_tool_listing", tools=_JUNK),
)
_BLOCKS = st.one_of(
    _MEDIA_BLOCKS,
    _SERVER_RESULTS,
    _UNKNOWN_BLOCKS,
    # In a turn of the user or the assistant they mean nothing; see also `_ANNOUNCEMENTS`.
    _block("tool_removal", tool=_JUNK),
    _block("text", text=_WORDS),
    _block("text", text=_WORDS),
    _block(
        "tool_use",
        id=_IDS,
        name=st.sampled_from(["Bash", "Read", ""]) | _WORDS,
        input=st.dictionaries(_WORDS, _JUNK, max_size=3),
    ),
    _block(
        "tool_result",
        tool_use_id=_IDS,
        content=_WORDS | _TEXT_BLOCKS | st.lists(_MEDIA_BLOCKS | _UNKNOWN_BLOCKS, max_size=2),
        is_error=st.booleans(),
    ),
    _block("thinking", thinking=_WORDS, signature=_WORDS),
    _block("redacted_thinking", data=_WORDS),
    _block("server_tool_use", id=_IDS, name=_WORDS, input=_JUNK),
    _block("web_search_tool_result", tool_use_id=_IDS, content=_JUNK),
    _block("search_result", title=_WORDS, source=_WORDS, content=_TEXT_BLOCKS),
    _block("tool_reference", tool_name=_WORDS),
    _block("compaction", content=_WORDS),
    _block("mcp_tool_use", id=_IDS, name=_WORDS, input=_JUNK),
    _rarely(_block("text", text=_WORDS)),
)
_ROLES = st.sampled_from(["user", "user", "assistant", "assistant", "system"])
_SCHEMAS = st.sampled_from(
    [b.BASH["input_schema"], b.NESTED["input_schema"], {}, {"type": "object"}, {"$ref": "#"}]
)
# What system messages say about tools: by name, or with a definition.
_CHANGES = st.fixed_dictionaries({"name": _rarely(st.sampled_from(["Bash", "Read", "New"]))}) | (
    st.fixed_dictionaries(
        {
            "definition": _rarely(
                st.sampled_from([b.BASH, b.READ, {"type": "bash_20250124", "name": "bash"}])
                | st.fixed_dictionaries(
                    {
                        "name": _rarely(st.sampled_from(["New", "neu ü"])),
                        "input_schema": _rarely(_SCHEMAS),
                    },
                    optional={"type": st.just("custom"), "description": _rarely(_WORDS)},
                )
            )
        }
    )
)
_ANNOUNCEMENTS = st.fixed_dictionaries(
    {
        "role": st.just("system"),
        "content": st.lists(
            _block("tool_addition", tool=_CHANGES)
            | _block("tool_removal", tool=_CHANGES)
            | _block("text", text=_WORDS),
            max_size=3,
        ),
    }
)
_TURNS = st.fixed_dictionaries(
    {"role": _rarely(_ROLES), "content": _rarely(_WORDS | st.lists(_BLOCKS, max_size=4))}
)
# Most conversations have a question at both ends, so that most are answered.
_QUESTION = st.sampled_from([[b.user("Go on.")]] * 5 + [[]])
_MESSAGES = st.builds(
    lambda first, turns, last: first + turns + last,
    _QUESTION,
    st.lists(_rarely(st.one_of(_TURNS, _TURNS, _TURNS, _ANNOUNCEMENTS)), min_size=1, max_size=6),
    _QUESTION,
)
_TOOL_TYPES: Final = (
    *("bash_20250124", "bash_20241022", "text_editor_20250124", "text_editor_20250728"),
    *("memory_20250818", "computer_20250124", "computer_20251124", "browser_20260101"),
    *("mcp_toolset", "browser_toolset_20260101", "computer_toolset", "web_search_20250305"),
    *("web_fetch_20250910", "code_execution_20250825", "tool_search_tool_regex_20251119"),
    *("a_tool_of_next_year", "custom"),
)
_TYPED_TOOLS = st.fixed_dictionaries(
    {"type": st.sampled_from(_TOOL_TYPES)},
    optional={
        "name": st.sampled_from(["bash", "computer", "search"]) | _WORDS,
        "mcp_server_name": _WORDS,
        "display_width_px": _rarely(st.integers(-1, 4000)),
        "display_height_px": _rarely(st.integers(-1, 4000)),
        "configs": _JUNK,
        "max_uses": st.integers(0, 3),
    },
)
_TOOLS = st.lists(
    st.sampled_from([b.BASH, b.READ, b.NESTED, {"type": "web_search_20250305", "name": "search"}])
    | st.sampled_from([{**b.READ, "name": "Later", "defer_loading": True}])
    | _TYPED_TOOLS
    | st.fixed_dictionaries(
        {"name": _rarely(_WORDS)},
        optional={
            "description": _rarely(_WORDS),
            "input_schema": _rarely(_SCHEMAS),
            "type": _rarely(st.sampled_from(["custom", "code_execution_20250825"])),
            "strict": _JUNK,
            "defer_loading": _JUNK,
        },
    ),
    max_size=3,
)
_AMOUNTS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["input_tokens", "tool_uses", "thinking_turns"]),
        "value": _rarely(st.integers(-1, 9)),
    }
)
_EDITS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["clear_thinking_20251015", "clear_tool_uses_20250919", "compact_20260112", "new"]
        )
    },
    optional={
        "keep": _rarely(st.just("all") | _AMOUNTS),
        "trigger": _rarely(_AMOUNTS),
        "clear_at_least": _rarely(_AMOUNTS),
        "exclude_tools": _rarely(st.lists(_WORDS, max_size=2)),
        "clear_tool_inputs": _rarely(st.booleans()),
    },
)
_OPTIONAL: Final = {
    "system": _WORDS | _TEXT_BLOCKS,
    "tools": _TOOLS,
    "tool_choice": st.fixed_dictionaries(
        {"type": st.sampled_from(["auto", "any", "tool", "none"])},
        optional={"name": st.just("Bash"), "disable_parallel_tool_use": st.booleans()},
    ),
    "thinking": st.fixed_dictionaries(
        {"type": st.sampled_from(["adaptive", "enabled", "disabled"])},
        optional={
            "budget_tokens": st.integers(-1, 5000),
            "display": st.sampled_from(["omitted", "summarized"]) | _WORDS,
        },
    ),
    "output_config": st.sampled_from(
        [
            {"effort": "high"},
            {"format": {"type": "json_schema", "schema": b.READ["input_schema"]}},
            {"format": {"type": "json_schema", "schema": {"type": "nonsense"}}},
            {"format": None},
        ]
    ),
    "output_format": st.sampled_from(
        [
            {"type": "json_schema", "schema": b.READ["input_schema"]},
            {"type": "json_schema", "schema": {"type": 7}},
            {"type": "text"},
            None,
        ]
    ),
    "mcp_servers": st.lists(
        _rarely(st.fixed_dictionaries({"type": st.just("url"), "name": _WORDS, "url": _WORDS})),
        max_size=2,
    ),
    "context_management": st.fixed_dictionaries({"edits": st.lists(_rarely(_EDITS), max_size=3)}),
    "metadata": st.fixed_dictionaries({"user_id": _WORDS}),
    "stop_sequences": st.lists(_WORDS, max_size=3),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(0, 1000),
    "diagnostics": _JUNK,
}


# The simplest is a good one, so that the smallest failing body is one that ought to be answered.
_LIMITS: Final = st.sampled_from([1, 2, 3, 4, 5, 6, 0, -1])


@st.composite
def grown(draw: Draw) -> bytes:
    """A request from the schema, with a wrong value here and there."""
    body: dict[str, Any] = {
        "model": draw(_rarely(st.just("m"))),
        # Always small: a large one would only use the server's time.
        "max_tokens": draw(_LIMITS),
        "messages": draw(_rarely(_MESSAGES)),
        "stream": draw(st.booleans()),
    }
    for name in draw(st.sets(st.sampled_from(sorted(_OPTIONAL)), max_size=4)):
        body[name] = draw(_rarely(_OPTIONAL[name]))
    if not draw(_MOSTLY):
        del body[draw(st.sampled_from(sorted(body)))]
    return json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


def _recorded() -> list[bytes]:
    """Whole requests in the shapes that Claude Code sends."""
    common: b.Json = {"model": "claude-x", "max_tokens": _SMALL_LIMIT, "stream": True}
    head = [b.text(b.ATTRIBUTION.format("a3f")), b.text("You are Claude Code.")]
    first = [b.user([b.text("<system-reminder>x</system-reminder>"), b.text("Go.")])]
    bodies = [
        common | {"system": head, "tools": [b.BASH, b.READ], "messages": list(b.TOOL_LOOP)},
        common
        | {
            "system": head,
            "messages": [*first, b.system("Agents.")],
            "tools": [b.NESTED],
            "thinking": {"type": "adaptive", "display": "omitted"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "output_config": {"effort": "high"},
            "metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'},
        },
        common | {"messages": list(b.HI), "stream": False, "stop_sequences": ["</block>"]},
        common
        | {"messages": [b.user([b.image(), b.text("?")]), b.assistant([b.call("toolu_1", x=1)])]},
    ]
    return [json.dumps(body).encode() for body in bodies]


_RECORDED: Final = _recorded()
_TOKENS: Final = (b"", b"null", b"{}", b"[]", b'"', b"\\u0000", b"\\ud800", b"\xff", b"1e9", b",")


@st.composite
def broken(draw: Draw) -> bytes:
    """A recorded body after a few cuts, repeats, flips and insertions."""
    raw = draw(st.sampled_from(_RECORDED))
    for _ in range(draw(st.integers(1, 3))):
        raw = _mutated(draw, raw)
    return _LARGE_LIMIT.sub(rb"\g<1>7", raw)


def _mutated(draw: Draw, raw: bytes) -> bytes:
    if not raw:
        return raw
    at = draw(st.integers(0, len(raw) - 1))
    length = draw(st.integers(0, 40))
    match draw(st.sampled_from(["flip", "insert", "token", "cut", "repeat", "end"])):
        case "flip":
            return raw[:at] + bytes([raw[at] ^ draw(st.integers(1, 255))]) + raw[at + 1 :]
        case "insert":
            return raw[:at] + draw(st.binary(max_size=8)) + raw[at:]
        case "token":
            return raw[:at] + draw(st.sampled_from(_TOKENS)) + raw[at + length :]
        case "cut":
            return raw[:at] + raw[at + length :]
        case "repeat":
            return raw[: at + length] + raw[at:]
        case _:
            return raw[: at + 1]


_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "x-claude-code-session-id": st.sampled_from(["s1", "s2", "../s3", ""]),
        "x-claude-code-agent-id": st.sampled_from(["a1", "a2"]),
        "x-claude-code-request-class": st.sampled_from(["main", "subagent", "odd"]),
    },
)
_PACKERS: Final = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "identity": bytes,
    "odd": bytes,
}


@st.composite
def _shot(draw: Draw) -> Shot:
    raw, headers = draw(st.one_of(grown(), grown(), grown(), broken())), draw(_HEADERS)
    if draw(st.sampled_from([False] * 7 + [True])):
        coding = draw(st.sampled_from(sorted(_PACKERS)))
        headers = {**headers, "content-encoding": coding}
        packed = _PACKERS[coding](raw)
        raw = draw(st.sampled_from([packed] * 4 + [raw, packed[:-3], packed[: len(packed) // 2]]))
    return Shot(
        path=draw(st.sampled_from([MESSAGES] * 9 + [COUNT])),
        raw=raw,
        headers=headers,
        leave=draw(st.sampled_from([False] * 15 + [True])),
    )


shots = _shot()
