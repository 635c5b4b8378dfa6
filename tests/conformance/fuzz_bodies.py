"""Bodies for the fuzz: grown from the schema, or recorded ones with broken bytes.

Whatever they hold, `max_tokens` stays small, so that thousands take minutes.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import strategies as st

from tests.conformance import bodies as b
from tests.conformance.endpoint import COUNT, MESSAGES

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
_BLOCKS = st.one_of(
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
        content=_WORDS | _TEXT_BLOCKS,
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
_MESSAGES = st.lists(
    _rarely(
        st.fixed_dictionaries(
            {"role": _rarely(_ROLES), "content": _rarely(_WORDS | st.lists(_BLOCKS, max_size=4))}
        )
    ),
    min_size=1,
    max_size=6,
)
_SCHEMAS = st.sampled_from(
    [b.BASH["input_schema"], b.NESTED["input_schema"], {}, {"type": "object"}, {"$ref": "#"}]
)
_TOOLS = st.lists(
    st.sampled_from([b.BASH, b.READ, b.NESTED, {"type": "web_search_20250305", "name": "search"}])
    | st.fixed_dictionaries(
        {"name": _rarely(_WORDS)},
        optional={
            "description": _rarely(_WORDS),
            "input_schema": _rarely(_SCHEMAS),
            "type": _rarely(st.sampled_from(["custom", "code_execution_20250825"])),
            "strict": _JUNK,
        },
    ),
    max_size=3,
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
        optional={"budget_tokens": st.integers(-1, 5000), "display": _WORDS},
    ),
    "output_config": st.sampled_from(
        [
            {"effort": "high"},
            {"format": {"type": "json_schema", "schema": b.READ["input_schema"]}},
            {"format": {"type": "json_schema", "schema": {"type": "nonsense"}}},
            {"format": None},
        ]
    ),
    "context_management": st.just({"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}),
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


shots = st.builds(
    Shot,
    path=st.sampled_from([MESSAGES] * 9 + [COUNT]),
    raw=st.one_of(grown(), grown(), grown(), broken()),
    headers=st.fixed_dictionaries(
        {},
        optional={
            "x-claude-code-session-id": st.sampled_from(["s1", "s2", "../s3", ""]),
            "x-claude-code-agent-id": st.sampled_from(["a1", "a2"]),
            "x-claude-code-request-class": st.sampled_from(["main", "subagent", "odd"]),
        },
    ),
    leave=st.sampled_from([False] * 15 + [True]),
)
