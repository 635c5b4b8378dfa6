"""Turns chat completion chunks into a message, and corrects the mistakes of servers."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.relay.dialect import BrokenAnswerError, RefusedInStreamError
from anyclaude.relay.sse import ServerEvent, SseParser
from tests.integration.relay_process import fold
from tests.unit.relay.readers import chat_reader

DONE = "[DONE]"
USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 90},
    },
}


def answer(*chunks: Any, **fields) -> dict[str, Any]:
    read = chat_reader(**fields)
    for chunk in chunks:
        data = chunk if isinstance(chunk, str) else json.dumps(chunk)
        read.feed(ServerEvent("", data))
        if read.is_done:
            break
    read.finish()
    return fold(read.take())


def delta(finish: str | None = None, **fields) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def call(index=None, id=None, name=None, arguments=None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    piece = {
        "index": index,
        "id": id,
        "function": {key: value for key, value in function.items() if value is not None},
    }
    return {key: value for key, value in piece.items() if value is not None}


def tools(message: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(b["name"], b["input"]) for b in message["content"] if b["type"] == "tool_use"]


def test_words_and_counts():
    """Text, stop reason and counts arrive, including the tokens that the server reused."""
    message = answer(
        delta(role="assistant", content=""),
        delta(content="Hel"),
        delta(content="lo"),
        delta("stop"),
        USAGE,
        DONE,
    )
    assert message["content"] == [{"type": "text", "text": "Hello"}]
    assert message["stop_reason"] == "end_turn"
    assert message["usage"] == {
        "input_tokens": 10,
        "cache_read_input_tokens": 90,
        "cache_creation_input_tokens": 0,
        "output_tokens": 7,
    }


def test_started_comes_with_the_first_chunk_and_an_estimate():
    """The prompt's count is an estimate at the first chunk and exact at the end."""
    read = chat_reader()
    read.feed(ServerEvent("", json.dumps(delta(role="assistant"))))
    (first,) = read.take()
    assert first.started.usage.input_tokens == 42


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_in_a_field(field):
    """Thinking in any of the known fields becomes a signed thinking block before the text."""
    message = answer(delta(**{field: "h"}), delta(**{field: "m"}), delta("stop", content="yes"))
    thinking, text = message["content"]
    assert (thinking["thinking"], text["text"]) == ("hm", "yes")
    assert thinking["signature"]


@given(st.lists(st.integers(0, 40), max_size=6))
def test_thoughts_in_the_text(cuts):
    """Tags at the beginning of a response are read as thinking, however they are cut."""
    whole = "\n<think>\nhm <b\n</think>\n\nyes </think> it is"
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[i:j] for i, j in pairwise(edges)]
    message = answer(*(delta(content=piece) for piece in pieces), delta("stop"))
    thinking, text = message["content"]
    assert (thinking["thinking"], text["text"]) == ("hm <b", "yes </think> it is")


def test_white_space_alone_is_no_block():
    """White space around calls and thinking makes no block, since the API would refuse it later."""
    message = answer(
        delta(content="\n\n"),
        delta(tool_calls=[call(0, "a", "Bash", "{}")]),
        delta("tool_calls", content="\n"),
    )
    assert [block["type"] for block in message["content"]] == ["tool_use"]


def test_arguments_stream_as_they_come():
    """Each piece of the arguments is emitted before the next one arrives."""
    read = chat_reader()
    read.feed(ServerEvent("", json.dumps(delta(tool_calls=[call(0, "a", "Bash", '{"c')]))))
    read.take()
    read.feed(ServerEvent("", json.dumps(delta(tool_calls=[call(0, None, None, '":')]))))
    (event,) = read.take()
    assert event.block_delta.partial_json == '":'


LS, PWD = {"command": "ls"}, {"command": "pwd"}
TWO = [("Bash", LS), ("Bash", PWD)]
LS_TEXT, PWD_TEXT = json.dumps(LS), json.dumps(PWD)


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(
            [[call(0, "a", "Bash", "")], [call(0, None, None, LS_TEXT)],
             [call(1, "b", "Bash", "")], [call(1, None, None, PWD_TEXT)]],
            id="as the standard has it",
        ),
        pytest.param([[call(0, "a", "Bash", LS_TEXT), call(1, "b", "Bash", PWD_TEXT)]], id="whole"),
        pytest.param(
            [[call(None, "a", "Bash", LS_TEXT)], [call(None, "b", "Bash", PWD_TEXT)]],
            id="no index",
        ),
        pytest.param(
            [[call(None, "a", "Bash", LS_TEXT[:4])], [call(None, None, None, LS_TEXT[4:])],
             [call(None, "b", "Bash", "")], [call(None, None, None, PWD_TEXT)]],
            id="no index, in pieces",
        ),
        pytest.param(
            [[call(0, "a", "Bash", LS_TEXT)], [call(0, "b", "Bash", PWD_TEXT)]], id="one index"
        ),
        pytest.param(
            [[call(None, None, "Bash", LS_TEXT)], [call(None, None, "Bash", PWD_TEXT)]],
            id="neither index nor id",
        ),
        pytest.param(
            [[call(0, "a", "Bash", LS_TEXT[:5])], [call(1, "b", "Bash", PWD_TEXT[:7])],
             [call(0, None, None, LS_TEXT[5:])], [call(1, None, None, PWD_TEXT[7:])]],
            id="mixed",
        ),
        pytest.param(
            [[call(0, "a", "Ba")], [call(0, None, "sh", LS_TEXT)],
             [call(1, "b", "Bash")], [call(1, "b", "Bash", PWD_TEXT)]],
            id="name in pieces and repeated",
        ),
        pytest.param(
            [[call(0, "a", "Bash", LS)], [call(1, "b", "Bash", PWD)]], id="arguments as objects"
        ),
        pytest.param(
            [[call(0, "a", "Bash", LS_TEXT)], [call(0, "a", "Bash", LS_TEXT)],
             [call(1, "b", "Bash", PWD_TEXT)], [call(1, None, None, "\n")]],
            id="told twice",
        ),
        pytest.param(
            [[call(0, "a", "Bash", c) if i == 0 else call(0, None, None, c)
              for i, c in enumerate(LS_TEXT)],
             [call(1, "b", "Bash", c) if i == 0 else call(1, None, None, c)
              for i, c in enumerate(PWD_TEXT)]],
            id="by character",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("again", [False, True], ids=["", "and all told again at the end"])
def test_two_calls_in_every_form(chunks, again):
    """Every way in which servers send two calls gives two tool_use blocks with whole input."""
    last = {}
    if again:
        last = {"tool_calls": [call(0, "x", "Bash", LS_TEXT), call(1, "y", "Bash", PWD_TEXT)]}
    told = [delta(tool_calls=pieces) for pieces in chunks]
    message = answer(*told, delta("tool_calls", **last), DONE)
    assert tools(message) == TWO
    assert message["stop_reason"] == "tool_use"


@given(st.lists(st.integers(1, 60), max_size=8))
def test_arguments_survive_any_cut(cuts):
    """Brackets, quotes and backslashes in strings never end a call too early."""
    wanted = {"a": '}"]\\', "b": [{"c": '{\\"['}], "d": "🦊"}
    whole = json.dumps(wanted, ensure_ascii=False)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[i:j] for i, j in pairwise(edges)]
    chunks = [delta(tool_calls=[call(0, "a", "Bash", piece)]) for piece in pieces]
    assert tools(answer(*chunks, delta("tool_calls"))) == [("Bash", wanted)]


def test_words_after_a_call_come_after_it():
    """Text that follows a complete call is a block of its own."""
    message = answer(
        delta(tool_calls=[call(0, "a", "Bash", "{}")]), delta(content="done"), delta("stop")
    )
    assert [block["type"] for block in message["content"]] == ["tool_use", "text"]
    assert message["stop_reason"] == "tool_use"


def test_words_within_a_call_wait_for_its_end():
    """Text in the middle of a call is emitted after the call."""
    message = answer(
        delta(tool_calls=[call(0, "a", "Bash", '{"a"')]),
        delta(content="aside"),
        delta(tool_calls=[call(0, None, None, ": 1}")]),
        delta("tool_calls"),
    )
    assert tools(message) == [("Bash", {"a": 1})]
    assert message["content"][1]["text"] == "aside"


def test_a_call_without_arguments():
    """A call without arguments has an empty object as input."""
    assert tools(answer(delta(tool_calls=[call(0, "a", "Now")]), delta("tool_calls"))) == [
        ("Now", {})
    ]


@pytest.mark.parametrize("bad", ["functions.Bash:0", "", None, "x" * 65, "toolu_old"])
def test_ids_are_valid_in_every_mode(bad):
    """Invalid ids, and ids already used in the conversation, are replaced."""
    used = {"type": "tool_use", "id": "toolu_old", "name": "Bash", "input": {}}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": [used]}]
    message = answer(
        delta(tool_calls=[call(0, bad, "Bash", "{}")]), delta("tool_calls"), messages=turns
    )
    assert message["content"][0]["id"].startswith("toolu_")
    assert message["content"][0]["id"] != "toolu_old"


def test_a_valid_id_is_kept():
    """A valid id is kept, so that the server finds it again in the next request."""
    message = answer(delta(tool_calls=[call(0, "call_7", "Bash", "{}")]), delta("tool_calls"))
    assert message["content"][0]["id"] == "call_7"


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([delta("stop", content="a")], "end_turn"),
        ([delta("eos_token", content="a")], "end_turn"),
        ([delta("length", content="a")], "max_tokens"),
        ([delta("content_filter", content="a")], "refusal"),
        ([delta("stop", tool_calls=[call(0, "a", "Bash", "{}")])], "tool_use"),
        ([delta(content="a"), DONE], "end_turn"),
        ([delta(content="a"), delta("stop"), delta("stop"), DONE, DONE], "end_turn"),
    ],
)
def test_stop_reasons(chunks, reason):
    """Every finish reason is translated; if it is missing, [DONE] decides."""
    assert answer(*chunks)["stop_reason"] == reason


def test_a_matched_stop_sequence_is_named():
    """The matched stop sequence is passed on if the server names it."""
    chunk = delta("stop", content="a")
    chunk["choices"][0]["stop_reason"] = "</block>"
    message = answer(chunk, stop_sequences=["</block>"])
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "</block>")


def test_a_repeated_whole_message_is_emitted_once():
    """A whole message that is repeated at the end of a stream is not emitted again."""
    again = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    message = answer(delta(content="Hello"), again)
    assert message["content"] == [{"type": "text", "text": "Hello"}]


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([delta(content="a")], id="no end"),
        pytest.param([], id="nothing"),
        pytest.param([DONE], id="only the end"),
        pytest.param([delta(content="a"), '{"choices": ['], id="cut JSON"),
        pytest.param([delta(content="a"), "[]"], id="no object"),
        pytest.param(
            [delta(tool_calls=[call(0, "a", "Bash", '{"a":')]), delta("tool_calls")], id="cut call"
        ),
        pytest.param(
            [delta(tool_calls=[call(0, "a", "Bash", '{"a": 1}')]),
             delta(tool_calls=[call(0, None, None, '{"b": 1}')]), delta("stop")],
            id="arguments after their end",
        ),
        pytest.param([delta("tool_calls", tool_calls=[call(0, "a", None, "{}")])], id="no name"),
        pytest.param(
            [delta("tool_calls", tool_calls=[call(0, "a", "Bash", "[1]")])], id="no object"
        ),
    ],
)  # fmt: skip
def test_a_broken_answer_fails(chunks):
    """A mistake that cannot be corrected is an error and never a message."""
    with pytest.raises(BrokenAnswerError):
        answer(*chunks)


@pytest.mark.parametrize(
    "chunk",
    [
        {"error": {"message": "out of memory"}},
        {"error": "out of memory"},
        {"object": "error", "message": "out of memory"},
        {"choices": [{"delta": {}, "error": {"message": "out of memory"}}]},
        {"choices": [{"delta": {}}], "x_groq": {"error": "out of memory"}},
        {"detail": "out of memory"},
        {"message": "out of memory", "code": 500},
    ],
)
def test_errors_within_a_stream(chunk):
    """An error object is recognised wherever it is in the stream."""
    with pytest.raises(RefusedInStreamError, match="out of memory"):
        answer(delta(content="a"), chunk)


@pytest.mark.parametrize(
    "choices",
    [
        [{"delta": {"content": ["y", "es"]}}],
        [{"delta": {"content": {"type": "text", "text": "yes"}}}],
        [{"delta": {"content": [{"type": "output_text", "text": "yes"}]}}],
        [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "yes"}}],
        {"index": 0, "delta": {"content": "yes"}},
        [{"text": "yes", "index": 0}],
        [{"delta": {}, "message": {"content": "yes"}}],
        [{"delta": {"content": "</think>\n\nyes"}}],
        [{"delta": {"content": "<think>\n\n</think>\n\nyes"}}],
    ],
)
@pytest.mark.parametrize("end", [delta("stop"), '"[DONE]"', "[done]", " [DONE]  "])
def test_text_in_every_place(choices, end):
    """Text is found in each of the places and shapes in which servers send it."""
    message = answer({"choices": choices}, end)
    assert message["content"] == [{"type": "text", "text": "yes"}]


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "hm"},
        {"reasoning": {"text": "hm"}},
        {"reasoning": {"content": "hm"}, "reasoning_content": ""},
        {"thought": "hm"},
        {"reasoning_content": "hm", "reasoning": "hm"},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    ],
)
def test_thoughts_in_every_place(fields):
    """Thoughts are found in each of the fields in which servers send them, and once."""
    message = answer(delta(**fields), delta(content="yes"), delta("stop"))
    assert [block.get("thinking") for block in message["content"]] == ["hm", None]


@pytest.mark.parametrize("content", [[{"type": "text", "text": "yes"}], "yes"])
def test_a_whole_answer(content):
    """A response that is not streamed is read like a stream, including content in parts."""
    read = chat_reader()
    choice = {
        "message": {"content": content, "tool_calls": [call(None, "a", "Bash", LS_TEXT)]},
        "finish_reason": "tool_calls",
    }
    document = {"choices": [choice], "usage": USAGE["usage"]}
    read.whole(document)
    read.finish()
    message = fold(read.take())
    assert message["content"][0]["text"] == "yes"
    assert tools(message) == [("Bash", LS)]
    assert message["usage"]["cache_read_input_tokens"] == 90


@given(st.data())
def test_the_message_does_not_depend_on_chunks_of_bytes(data):
    """However the stream's bytes are cut, the message is the same."""
    told = [delta(content="é"), delta(tool_calls=[call(0, "a", "Bash", LS_TEXT)]), delta("stop")]
    stream = b"".join(f"data: {json.dumps(chunk)}\r\n\r\n".encode() for chunk in [*told, USAGE])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser, read = SseParser(), chat_reader()
    for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for told_event in parser.feed(stream[i:j]):
            read.feed(told_event)
    read.finish()
    message = fold(read.take())
    assert message["content"][0] == {"type": "text", "text": "é"}
    assert tools(message) == [("Bash", LS)]
