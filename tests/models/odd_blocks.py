"""Content blocks of every known type, whose fields hold anything that JSON can say."""

from typing import Any, Final

from hypothesis import strategies as st

TYPES: Final = (
    *("text", "image", "document", "search_result", "tool_use", "tool_result", "tool_reference"),
    *("thinking", "redacted_thinking", "compaction", "server_tool_use", "web_search_tool_result"),
)
_FIELDS: Final = (
    *("text", "source", "title", "content", "id", "name", "input", "tool_use_id", "tool_name"),
    *("is_error", "type", "data", "media_type", "url"),
)
# Hold blocks themselves.
_DEEP: Final = ("search_result", "tool_result", "document")
_WORDS: Final = ("", "a", "é", "base64", "url", "text", "content", *TYPES)
_SCALARS: Final = st.none() | st.booleans() | st.integers() | st.sampled_from(_WORDS)


def _fields(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=3)


def _typed(fields: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    kinds = st.sampled_from(_DEEP) | st.sampled_from(TYPES)
    return st.builds(lambda held, kind: {**held, "type": kind}, fields, kinds)


def _deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=2) | _fields(inner) | _typed(_fields(inner))


_ANYTHING: Final = st.recursive(_SCALARS, _deeper, max_leaves=5)
_SOURCE: Final = st.fixed_dictionaries(
    {"type": st.sampled_from(_WORDS)},
    optional={
        "media_type": st.sampled_from(["text/plain", "image/png"]) | _ANYTHING,
        "data": _ANYTHING,
        "content": st.lists(_ANYTHING, max_size=2) | _ANYTHING,
        "url": _ANYTHING,
    },
)

# At the top a type is known to be text: a request without one is refused before. The other fields
# are those that some kind of block has, so that what looks into them is reached.
BLOCKS: Final = _typed(
    st.fixed_dictionaries(
        {
            "content": st.lists(_ANYTHING, max_size=2) | _ANYTHING,
            "source": _SOURCE | st.just("a") | _ANYTHING,
        },
        optional={
            "tool_use_id": st.just("t1") | _ANYTHING,
            **dict.fromkeys(("text", "title", "id", "name", "input", "tool_name"), _ANYTHING),
        },
    )
)
