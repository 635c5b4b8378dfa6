"""Parallel calls as servers send them: no call is lost, glued to another, or doubled."""

import json

import pytest

from anyclaude.relay.names import ToolNames, short_name
from anyclaude.relay.sse import ServerEvent
from tests.integration.relay_process import fold
from tests.unit.relay.readers import chat_reader
from tests.unit.relay.test_openai_answer import DONE, answer, call, delta, tools

READ, GLOB, NOW = "Read", "Glob", "Now"
E, A, B = "{}", '{"path": "a"}', '{"path": "b"}'
ARGS = {E: {}, A: {"path": "a"}, B: {"path": "b"}}
TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in (READ, GLOB, NOW)]

# Name, chunks of pieces, the calls that are meant.
ONE_INDEX = [
    (
        "names without arguments",
        [[call(0, "", READ, E)], [call(0, "", NOW, E)]],
        [(READ, E), (NOW, E)],
    ),
    (
        "names with equal arguments",
        [[call(0, None, READ, A)], [call(0, None, GLOB, A)]],
        [(READ, A), (GLOB, A)],
    ),
    (
        "no index and no id",
        [[call(None, None, READ, A)], [call(None, None, GLOB, A)]],
        [(READ, A), (GLOB, A)],
    ),
    ("one chunk", [[call(0, None, READ, A), call(0, None, GLOB, A)]], [(READ, A), (GLOB, A)]),
    ("other arguments", [[call(0, "", READ, A)], [call(0, "", READ, B)]], [(READ, A), (READ, B)]),
    (
        "ids alone differ",
        [[call(0, "x1", READ, A)], [call(0, "x2", READ, A)]],
        [(READ, A), (READ, A)],
    ),
    (
        "ids differ, no arguments",
        [[call(0, "x1", NOW, "")], [call(0, "x2", NOW, "")]],
        [(NOW, E), (NOW, E)],
    ),
    (
        "three",
        [[call(0, "", READ, A)], [call(0, "", GLOB, A)], [call(0, "", NOW, E)]],
        [(READ, A), (GLOB, A), (NOW, E)],
    ),
    ("none, then some", [[call(0, "", NOW, "")], [call(0, "", READ, A)]], [(NOW, E), (READ, A)]),
    (
        "null, then some",
        [[call(0, "", NOW, "null")], [call(0, "", READ, A)]],
        [(NOW, E), (READ, A)],
    ),
    (
        "in pieces",
        [
            [call(0, "a", READ, A[:4])],
            [call(0, None, None, A[4:])],
            [call(0, "b", READ, B[:4])],
            [call(0, None, None, B[4:])],
        ],
        [(READ, A), (READ, B)],
    ),
    (
        "the name alone begins the next",
        [[call(0, "", READ, A)], [call(0, "", GLOB)], [call(0, None, None, B)]],
        [(READ, A), (GLOB, B)],
    ),
]
ONE_ID = [
    (
        "the start under the index of the call before",
        [
            [call(0, "c0", READ, "")],
            [call(0, None, None, A)],
            [call(0, "c1", GLOB, "")],
            [call(1, None, None, B)],
        ],
        [(READ, A), (GLOB, B)],
    ),
    (
        "indexes as text",
        [
            [call("0", "c0", READ, "")],
            [call("0", None, None, A)],
            [call("1", "c1", GLOB, "")],
            [call("1", None, None, B)],
        ],
        [(READ, A), (GLOB, B)],
    ),
    (
        "an index below zero",
        [[call(-1, "a", READ, A)], [call(-1, "b", GLOB, B)]],
        [(READ, A), (GLOB, B)],
    ),
    (
        "all calls again with each new one",
        [[call(0, "a", READ, A)], [call(0, "a", READ, A), call(1, "b", GLOB, B)]],
        [(READ, A), (GLOB, B)],
    ),
    ("equal calls", [[call(0, "c", READ, A)], [call(1, "c", READ, A)]], [(READ, A), (READ, A)]),
    (
        "equal calls of nothing",
        [[call(0, "c", NOW, "null")], [call(1, "c", NOW, E)]],
        [(NOW, E), (NOW, E)],
    ),
    ("two indexes", [[call(0, "c1", READ, A)], [call(1, "c1", READ, B)]], [(READ, A), (READ, B)]),
    ("two names", [[call(0, "c1", READ, A)], [call(1, "c1", GLOB, B)]], [(READ, A), (GLOB, B)]),
    (
        "in pieces",
        [
            [call(0, "c1", READ, "")],
            [call(0, None, None, A)],
            [call(1, "c1", GLOB, "")],
            [call(1, None, None, B)],
        ],
        [(READ, A), (GLOB, B)],
    ),
    ("one chunk", [[call(0, "c1", READ, A), call(1, "c1", GLOB, B)]], [(READ, A), (GLOB, B)]),
    (
        "the id is the name",
        [[call(0, READ, READ, A)], [call(1, READ, READ, B)]],
        [(READ, A), (READ, B)],
    ),
    (
        "an id for each piece",
        [
            [call(0, "c1", READ, "")],
            [call(0, "c2", None, A[:9])],
            [call(0, "c3", None, A[9:])],
            [call(1, "c4", GLOB, B)],
        ],
        [(READ, A), (GLOB, B)],
    ),
    (
        "an id and the name for each piece",
        [
            [call(0, "c1", READ, "")],
            [call(0, "c2", READ, A[:9])],
            [call(0, "c3", READ, A[9:])],
            [call(1, "c4", GLOB, B)],
        ],
        [(READ, A), (GLOB, B)],
    ),
    (
        "the same without an index",
        [
            [call(None, "c1", READ, "")],
            [call(None, "c2", READ, A[:9])],
            [call(None, "c3", READ, A[9:])],
            [call(None, "c4", GLOB, B)],
        ],
        [(READ, A), (GLOB, B)],
    ),
    (
        "an index for each piece",
        [[call(0, "c1", READ, "")], [call(1, "c1", None, A[:9])], [call(2, "c1", None, A[9:])]],
        [(READ, A)],
    ),
    (
        "equal calls of two ids",
        [[call(0, "c1", READ, A), call(1, "c2", READ, A)]],
        [(READ, A), (READ, A)],
    ),
]
ARGUMENTS = [
    ("empty, then whole", [[call(0, "c", READ, E)], [call(0, None, None, A)]], A),
    (
        "empty, then pieces",
        [[call(0, "c", READ, E)], [call(0, None, None, A[:4])], [call(0, None, None, A[4:])]],
        A,
    ),
    ("empty and whole in one piece", [[call(0, "c", READ, E + A)]], A),
    ("empty with blanks", [[call(0, "c", READ, "{ }")], [call(0, None, None, "\n" + A)]], A),
    (
        "empty by character",
        [[call(0, "c", READ, "{")], [call(0, None, None, "}")], [call(0, None, None, A)]],
        A,
    ),
    ("null, then whole", [[call(0, "c", READ, "null")], [call(0, None, None, A)]], A),
    (
        "an empty object, then an object",
        [[call(0, "c", READ, {})], [call(0, None, READ, ARGS[A])]],
        A,
    ),
    ("an object", [[call(0, "c", READ, ARGS[A])]], A),
    ("a string in a string", [[call(0, "c", READ, json.dumps(A))]], A),
    (
        "a string in a string, in pieces",
        [[call(0, "c", READ, json.dumps(A)[:6])], [call(0, None, None, json.dumps(A)[6:])]],
        A,
    ),
    ("the word null", [[call(0, "c", READ, "null")]], E),
    ("the word null in a string", [[call(0, "c", READ, '"null"')]], E),
    ("null", [[{"index": 0, "id": "c", "function": {"name": READ, "arguments": None}}]], E),
    ("blank", [[call(0, "c", READ, " ")]], E),
    ("nothing", [[call(0, "c", READ)]], E),
    ("an empty list", [[call(0, "c", READ, "[]")]], E),
    ("without the object around", [[{"index": 0, "id": "c", "name": READ, "arguments": A}]], A),
    ("an object in a list", [[call(0, "c", READ, [ARGS[A]])]], A),
    (
        "under another name",
        [[{"index": 0, "id": "c", "function": {"name": READ, "parameters": ARGS[A]}}]],
        A,
    ),
    ("under the name input", [[{"index": 0, "id": "c", "name": READ, "input": ARGS[A]}]], A),
    ("an object in a list, as text", [[call(0, "c", READ, f"[{A}]")]], A),
    ("a string in a string in a string", [[call(0, "c", READ, json.dumps(json.dumps(A)))]], A),
    ("a word for none", [[call(0, "c", READ, "None")]], E),
    ("another word for none", [[call(0, "c", READ, "undefined")]], E),
    ("a marker behind", [[call(0, "c", READ, A + "<|eot_id|>")]], A),
    ("a marker behind, alone", [[call(0, "c", READ, A)], [call(0, None, None, "</tool_call>")]], A),
    ("a fence behind", [[call(0, "c", READ, A + "\n```")]], A),
    ("before the name", [[call(0, "c", None, A)], [call(0, "c", READ)]], A),
    (
        "before the name, in pieces",
        [[call(0, "c", None, A[:5])], [call(0, None, None, A[5:])], [call(0, None, READ)]],
        A,
    ),
    ("a piece of nothing first", [[{}], [call(0, "c", READ, A)]], A),
    ("one bracket too many", [[call(0, "c", READ, A + "}")]], A),
    ("one bracket too many, alone", [[call(0, "c", READ, A)], [call(0, None, None, "}\n")]], A),
    ("told twice", [[call(0, "c", READ, A)], [call(0, "c", READ, A)]], A),
    ("empty after the end", [[call(0, "c", READ, A)], [call(0, "c", READ, E)]], A),
]


def ids(message):
    return [block["id"] for block in message["content"] if block["type"] == "tool_use"]


def meant(calls):
    return [(name, ARGS[arguments]) for name, arguments in calls]


@pytest.mark.parametrize(
    ("chunks", "calls"), [pytest.param(*row, id=name) for name, *row in ONE_INDEX + ONE_ID]
)
@pytest.mark.parametrize("ending", ["with the last call", "alone"])
def test_parallel_calls(chunks, calls, ending):
    """Calls that share an index or an id are told apart by what differs."""
    parts = [delta(tool_calls=pieces) for pieces in chunks]
    if ending == "with the last call":
        parts[-1]["choices"][0]["finish_reason"] = "tool_calls"
    else:
        parts.append(delta("tool_calls"))
    message = answer(*parts, tools=TOOLS)
    assert tools(message) == meant(calls)
    assert len(set(ids(message))) == len(calls)


@pytest.mark.parametrize(
    ("chunks", "arguments"), [pytest.param(*row, id=name) for name, *row in ARGUMENTS]
)
def test_arguments(chunks, arguments):
    """What stands for no arguments, or precedes the real ones, is recognised."""
    message = answer(
        *[delta(tool_calls=pieces) for pieces in chunks], delta("tool_calls"), tools=TOOLS
    )
    assert tools(message) == meant([(READ, arguments)])


@pytest.mark.parametrize(
    ("chunks", "calls", "text"),
    [
        pytest.param([delta("stop", content="a"), delta(content=" b"), DONE], [], "a b", id="text"),
        pytest.param(
            [delta("stop", content="a"), delta("stop", content=" b")],
            [],
            "a b",
            id="a reason with every chunk",
        ),
        pytest.param(
            [delta("stop", content="a"), delta(tool_calls=[call(0, "c", READ, A)]), DONE],
            [(READ, A)],
            "a",
            id="a call",
        ),
        pytest.param(
            [
                delta("stop", tool_calls=[call(0, "c", READ, A)]),
                delta("stop", tool_calls=[call(1, "d", GLOB, B)]),
            ],
            [(READ, A), (GLOB, B)],
            "",
            id="calls with a reason each",
        ),
        pytest.param(
            [delta(content="a"), delta(content="b"), delta("stop"), delta("stop", content="ab")],
            [],
            "ab",
            id="all text again",
        ),
        pytest.param(
            [
                delta(content="a"),
                {
                    "choices": [
                        {
                            "message": {"content": "a", "tool_calls": [call(0, "c", READ, A)]},
                            "finish_reason": "tool_calls",
                        }
                    ]
                },
            ],
            [(READ, A)],
            "a",
            id="a call in the message at the end",
        ),
        pytest.param(
            [
                delta(content="a", tool_calls=[call(0, "c", NOW, ""), call(1, "d", READ, A)]),
                delta("stop", tool_calls=[call(None, None, NOW, E), call(None, None, READ, A)]),
            ],
            [(NOW, E), (READ, A)],
            "a",
            id="all calls again, one without arguments",
        ),
        pytest.param(
            [delta("function_call", function_call={"name": READ, "arguments": A})],
            [(READ, A)],
            "",
            id="the old field of one call",
        ),
    ],
)
def test_what_comes_after_the_first_reason(chunks, calls, text):
    """Text and calls after a finish reason belong to the answer; a repetition does not."""
    message = answer(*chunks, tools=TOOLS)
    assert tools(message) == meant(calls)
    assert "".join(b["text"] for b in message["content"] if b["type"] == "text") == text


@pytest.mark.parametrize("index", [None, 0])
@pytest.mark.parametrize("call_id", [None, "", "call_0"])
@pytest.mark.parametrize(
    "calls",
    [
        [(READ, A), (READ, A)],
        [(NOW, E), (NOW, E)],
        [(READ, E), (READ, A)],
        [(READ, A), (GLOB, A), (READ, B)],
        [(NOW, "null"), (READ, A)],
        [(NOW, ""), (NOW, "")],
    ],
)
def test_calls_of_a_whole_answer(calls, call_id, index):
    """In a response that is not streamed, each entry is a call, whatever its id and index are."""
    written = [call(index, call_id, name, arguments) for name, arguments in calls]
    read = chat_reader(tools=TOOLS)
    read.whole({"choices": [{"message": {"tool_calls": written}, "finish_reason": "tool_calls"}]})
    read.finish()
    message = fold(read.take())
    assert tools(message) == [(name, ARGS.get(arguments, {})) for name, arguments in calls]
    assert len(set(ids(message))) == len(calls)


@pytest.mark.parametrize(
    "chunks",
    [
        [delta("stop", content="a"), delta("stop", content="b")],
        [delta("stop", content="a"), delta(content="b")],
        [delta("stop", content="a"), delta(content="b"), delta("stop")],
        [delta("stop", reasoning="a"), delta("stop", content="b")],
        [delta("stop"), delta("tool_calls", tool_calls=[call(0, "c", READ, A)])],
    ],
)
def test_a_reason_that_was_followed_by_content_ends_nothing(chunks):
    """After content behind a finish reason, only [DONE] or the stream's end is an end."""
    read = chat_reader(tools=TOOLS)
    read.feed(ServerEvent("", json.dumps(chunks[0])))
    assert read.is_complete
    for chunk in chunks[1:]:
        read.feed(ServerEvent("", json.dumps(chunk)))
    assert not read.is_complete
    read.feed(ServerEvent("", DONE))
    assert read.is_complete


@pytest.mark.parametrize(
    "reason", ["length", "max_tokens", "MAX_TOKENS", "model_length", "truncated"]
)
def test_a_call_that_was_cut(reason):
    """A call that was cut at max_tokens is shown as far as it came, as the API does."""
    message = answer(
        delta(content="I look."), delta(tool_calls=[call(0, "c", READ, A[:9])]), delta(reason)
    )
    assert message["content"][0] == {"type": "text", "text": "I look."}
    assert message["stop_reason"] in ("max_tokens", "model_context_window_exceeded")


AROUND = [
    "{}",
    "functions.{}",
    "tools.{}",
    "default_api.{}",
    "functions.{}:0",
    "{}<|channel|>commentary",
]


@pytest.mark.parametrize("around", [*AROUND, " {}\n", '"{}"', "`{}`", "functions.{} ", "tool/{}"])
@pytest.mark.parametrize("name", [READ, READ.lower(), READ.upper()])
def test_names_with_something_around(around, name):
    """What models write around the name of a tool, or capitals, do not make it another tool."""
    written = call(0, "c", around.format(name), A)
    message = answer(delta(tool_calls=[written]), delta("tool_calls"), tools=TOOLS)
    assert tools(message) == meant([(READ, A)])


@pytest.mark.parametrize("name", ["read", "Reader", "functions.", "", "READ"])
def test_names_that_could_mean_two_tools(name):
    """A name stays as it is if no tool has it, or if two tools differ by their capitals only."""
    offered = ToolNames(["Read", "reaD", "functions.Glob"])
    assert offered.original(name) == name
    assert offered.original("functions.Glob") == "functions.Glob"


LONG = "mcp__" + "a_long_server_name_" * 4 + "read"


@pytest.mark.parametrize("name", [LONG, LONG + "_file", "a.b/c", "größe", "with space", "x" * 65])
def test_long_and_odd_names(name):
    """A name that servers refuse is sent in a short form, and the client gets its own back."""
    sent = short_name(name)
    assert len(sent) <= 64
    assert sent.isascii()
    assert sent == short_name(name)
    offered = [{"name": name, "input_schema": {"type": "object"}}, *TOOLS]
    message = answer(delta(tool_calls=[call(0, "c", sent, A)]), delta("tool_calls"), tools=offered)
    assert tools(message) == meant([(name, A)])


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["\ud83d", "\ude00 ok"], "😀 ok"),
        (["a\ud83d", "\ude00"], "a😀"),
        (["\ud83d"], "\ufffd"),
        (["\ude00x"], "\ufffdx"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
    ],
)
@pytest.mark.parametrize("field", ["content", "reasoning_content", "arguments"])
def test_halves_of_characters(field, pieces, text):
    """Two halves of a character in two pieces are joined; a half alone becomes U+FFFD."""
    if field == "arguments":
        whole = ['{"path": "', *pieces, '"}']
        chunks = [delta(tool_calls=[call(0, "c", READ, piece)]) for piece in whole]
        assert tools(answer(*chunks, delta("tool_calls"))) == [(READ, {"path": text})]
        return
    (block,) = answer(*(delta(**{field: piece}) for piece in pieces), delta("stop"))["content"]
    assert block.get("text", block.get("thinking")) == text


@pytest.mark.parametrize("raw", ["a\nb", "\t", "a\r\n", '\\"\n', "\x00", "\n" * 3])
def test_control_characters_in_arguments(raw):
    """Line ends in a string of the arguments, which JSON forbids, become their escapes."""
    whole = f'{{\n\t"path": "{raw}"}}'
    value = json.loads(whole, strict=False)
    for cut in range(len(whole)):
        pieces = [call(0, "c", READ, piece) for piece in (whole[:cut], whole[cut:])]
        chunks = [delta(tool_calls=[piece]) for piece in pieces]
        assert tools(answer(*chunks, delta("tool_calls"), tools=TOOLS)) == [(READ, value)]


@pytest.mark.parametrize(
    ("escaped", "value"),
    [
        (r"\ud83d\ude00", "😀"),
        (r"\ud83d", "\ufffd"),
        (r"\ude00x", "\ufffdx"),
        (r"\\ud83d", r"\ud83d"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
    ],
)
def test_escaped_halves_in_arguments(escaped, value):
    """However arguments are cut, no half of a character reaches the client."""
    whole = f'{{"path": "{escaped}"}}'
    for cut in range(len(whole)):
        chunks = [
            delta(tool_calls=[call(0, "c", READ, piece)]) for piece in (whole[:cut], whole[cut:])
        ]
        assert tools(answer(*chunks, delta("tool_calls"))) == [(READ, {"path": value})]
