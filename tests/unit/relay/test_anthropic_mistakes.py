"""What servers of the Anthropic dialect get wrong without losing anything."""

import itertools
import json
import re

import pytest

from anyclaude.messages.requests import parse_messages_request
from anyclaude.relay.anthropic.dialect import AnthropicDialect
from anyclaude.relay.dialect import BrokenAnswerError, Target
from anyclaude.relay.names import server_id, short_name
from anyclaude.relay.quirks import Quirk, Quirks
from anyclaude.relay.sse import ServerEvent
from anyclaude.runtime.upstreams import UpstreamSettings
from tests.integration.relay_process import fold
from tests.unit.relay.readers import message_reader
from tests.unit.relay.test_anthropic import START, STOP, begin, close, delta, end

MARK = {"cache_control": {"type": "ephemeral"}}
HI = {"role": "user", "content": "hi"}
CALL = {"type": "tool_use", "id": "call_0", "name": "Read", "input": {}}


def answer(*events, **fields):
    read = message_reader(**fields)
    for event in events:
        read.feed(ServerEvent("", json.dumps(event)))
    read.finish()
    return fold(read.take())


def body(*messages, known=(), dropped=(), model="served", **fields):
    raw = {"model": "m", "max_tokens": 9, "messages": list(messages) or [HI], **fields}
    request = parse_messages_request(json.dumps(raw).encode())
    quirks = Quirks(frozenset(known), frozenset(dropped))
    return AnthropicDialect().body(request, raw, Target(UpstreamSettings(), model, quirks))


def call_events(*ids):
    for index, call_id in enumerate(ids):
        given = {} if call_id is None else {"id": call_id}
        yield begin(index, type="tool_use", name="Read", input={}, **given)
        yield delta(index, type="input_json_delta", partial_json='{"path": "a"}')
        yield end(index)


@pytest.mark.parametrize(
    "ids",
    [
        ("functions.Read:0",),
        ("call_0",),
        (None,),
        ("",),
        ("call_5", "call_5"),
        (None, None),
        ("größe",),
        ("x" * 200,),
        ("functions.Read:0", "functions.Read:0"),
    ],
)
def test_ids_are_valid_and_new(ids):
    """Ids that are missing, odd, repeated or used before become ids that the API takes."""
    earlier = [HI, {"role": "assistant", "content": [CALL]}, HI]
    message = answer(START, *call_events(*ids), close("tool_use"), STOP, messages=earlier)
    got = [block["id"] for block in message["content"]]
    assert len(got) == len(set(got)) == len(ids)
    assert all(re.fullmatch("[a-zA-Z0-9_-]+", call_id) for call_id in got)
    assert "call_0" not in got


@pytest.mark.parametrize("own", ["functions.Read:0", "call|7", "a b", "größe", "1.2"])
def test_a_server_gets_its_own_ids_back(own):
    """An odd id travels inside the client's id, so that the server finds its call again."""
    message = answer(START, *call_events(own), close("tool_use"), STOP)
    (call,) = message["content"]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "x"}
    sent = body(HI, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]})
    assert server_id(call["id"]) == own
    assert sent["messages"][1]["content"][0]["id"] == own
    assert sent["messages"][2]["content"][0]["tool_use_id"] == own


@pytest.mark.parametrize(
    ("given", "pieces", "value"),
    [
        ({}, ['{"a"', ": 1}"], {"a": 1}),
        ({"a": 1}, [], {"a": 1}),
        ({"a": 1}, ['{"a": 1}'], {"a": 1}),
        ({}, ["{}", '{"a": 1}'], {"a": 1}),
        (None, [], {}),
        ({}, ["null"], {}),
        ({}, [""], {}),
        ({}, [{"a": 1}], {"a": 1}),
        ({}, ['"{\\"a\\": 1}"'], {"a": 1}),
        ({"a": 1}, ["{}"], {"a": 1}),
        ('{"a": 1}', [], {"a": 1}),
        ("", [], {}),
        ({}, ['{"a": "\n"}'], {"a": "\n"}),
        ({}, ['{"a": 1}', "</tool_call>"], {"a": 1}),
    ],
)
def test_inputs(given, pieces, value):
    """The input is the real one, wherever and however often the server sends it."""
    message = answer(
        START,
        begin(0, type="tool_use", id="t", name="Read", input=given),
        *(delta(0, type="input_json_delta", partial_json=piece) for piece in pieces),
        end(0),
        close("tool_use"),
        STOP,
    )
    assert message["content"][0]["input"] == value


@pytest.mark.parametrize("field", ["partial_json", "input", "arguments", "text"])
def test_an_input_under_another_name(field):
    """A call never runs without its input because a server names it in another way."""
    call = [begin(0, type="tool_use", id="t", name="Read"), delta(0, **{field: '{"a": 1}'}), end(0)]
    assert answer(START, *call, close("tool_use"), STOP)["content"][0]["input"] == {"a": 1}


@pytest.mark.parametrize(
    "events",
    [
        [begin(0), delta(0, text="yes"), end(0)],
        [begin(0, text="yes"), end(0)],
        [{**begin(0), "content_block": None}, delta(0, text="yes"), end(0)],
        [begin(0, thinking="hm"), end(0), begin(1), delta(1, text="yes"), end(1)],
        [begin(0, type="text"), delta(0, thinking="hm"), delta(0, text="yes"), end(0)],
        [begin(0, type="text", text="<think>hm</think>\n\nyes"), end(0)],
        [begin(0, type="text"), delta(0, text="<th"), delta(0, text="ink>hm</think>yes"), end(0)],
        [begin(0, type="text"), delta(0, text="</think>yes"), end(0)],
        [begin(0, type="text"), delta(0, text="yes")],
    ],
)
def test_blocks_without_a_type_and_thoughts_within_text(events):
    """Text and thoughts are told apart by what comes, if the type of a block does not say it."""
    blocks = answer(START, *events, close(), STOP)["content"]
    assert [block["text"] for block in blocks if block["type"] == "text"] == ["yes"]
    thoughts = [block["thinking"] for block in blocks if block["type"] == "thinking"]
    assert thoughts == (["hm"] if "hm" in str(events) else [])


@pytest.mark.parametrize("place", ["top", "delta", "both"])
def test_where_the_stop_reason_is(place):
    """The stop reason counts whether it is within the delta or beside it."""
    told = {"stop_reason": "max_tokens"}
    last = {"type": "message_delta", "delta": told if place != "top" else {}}
    last |= told if place != "delta" else {}
    events = [begin(0, type="text", text="a"), end(0), last]
    assert answer(START, *events, STOP)["stop_reason"] == "max_tokens"


@pytest.mark.parametrize("index", [0, 3, None, "1"])
def test_deltas_with_an_index_that_no_block_has(index):
    """A delta whose index is wrong belongs to the open block, unless it is another block's."""
    text = [begin(1, type="text"), delta(index, type="text_delta", text="fine"), end(1)]
    assert answer(START, *text, close(), STOP)["content"] == [{"type": "text", "text": "fine"}]
    mixed = [begin(0, type="text", text="a"), begin(1, type="text"), delta(0, text="b"), end(1)]
    with pytest.raises(BrokenAnswerError):
        answer(START, *mixed, close(), STOP)


def test_an_input_in_a_block_of_another_kind():
    """A tool call whose start is missing is an error, since the call would be lost."""
    lost = [begin(0, type="text", text="a"), delta(0, partial_json='{"a": 1}'), end(0)]
    with pytest.raises(BrokenAnswerError):
        answer(START, *lost, close("tool_use"), STOP)


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded", "length"])
def test_a_call_that_was_cut(reason):
    """A call that was cut at max_tokens is no error, and no complete call."""
    cut = [
        begin(0, type="tool_use", id="t", name="Read", input={}),
        delta(0, type="input_json_delta", partial_json='{"a"'),
        end(0),
    ]
    assert answer(START, *cut, close(reason), STOP)["stop_reason"] in (
        "max_tokens",
        "model_context_window_exceeded",
    )
    with pytest.raises(BrokenAnswerError):
        answer(START, *cut, close("tool_use"), STOP)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["\ud83d", "\ude00"], "😀"),
        (["a\ud83d", "\ude00b"], "a😀b"),
        (["\ud83d"], "\ufffd"),
        (["x\ud83d", "y"], "x\ufffdy"),
    ],
)
@pytest.mark.parametrize("kind", ["text", "thinking"])
def test_halves_of_characters(kind, pieces, text):
    """Two halves of a character in two deltas are joined; a half alone becomes U+FFFD."""
    deltas = [delta(0, type=f"{kind}_delta", **{kind: piece}) for piece in pieces]
    (block,) = answer(START, begin(0, type=kind), *deltas, end(0), close(), STOP)["content"]
    assert block[kind] == text


def test_redacted_thinking_comes_back():
    """Encrypted thinking travels through the client, and goes back to the model it came from."""
    message = answer(
        START,
        begin(0, type="redacted_thinking", data="c2VjcmV0"),
        end(0),
        begin(1, type="text", text="ok"),
        end(1),
        close(),
        STOP,
        model="served",
    )
    turn = {"role": "assistant", "content": message["content"]}
    sent = body(HI, turn, HI)["messages"][1]["content"]
    assert sent[0] == {"type": "redacted_thinking", "data": "c2VjcmV0"}
    assert [
        block["type"] for block in body(HI, turn, HI, model="other")["messages"][1]["content"]
    ] == ["text"]


@pytest.mark.parametrize("name", ["x" * 129, "a.b", "mcp__" + "long_" * 40, "größe", "a b"])
def test_names_that_servers_refuse(name):
    """A name that the API does not take is sent in a short form everywhere, and mapped back."""
    call = {"type": "tool_use", "id": "t", "name": name, "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "x"}
    sent = body(
        HI,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
        tools=[{"name": name, "input_schema": {"type": "object"}}],
        tool_choice={"type": "tool", "name": name},
    )
    short = short_name(name, 128)
    assert sent["tools"][0]["name"] == sent["tool_choice"]["name"] == short
    assert sent["messages"][1]["content"][0]["name"] == short


def test_marks_of_the_system_prompt_are_kept():
    """A gateway to Claude gets the system prompt's cache_control, and the tools' and turns'."""
    system = [
        {"type": "text", "text": "You are.", **MARK},
        {"type": "text", "text": "Rules.", **MARK},
    ]
    turn = {"role": "user", "content": [{"type": "text", "text": "hi", **MARK}]}
    sent = body(turn, system=system)
    assert sent["system"] == system
    assert sent["messages"] == [turn]
    assert "cache_control" not in json.dumps(body(turn, system=system, dropped={"cache_control"}))


@pytest.mark.parametrize(
    "turns",
    [
        [HI, HI],
        [HI, {"role": "assistant", "content": "ok"}, HI, {"role": "system", "content": "note"}],
        [HI, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, HI],
        [HI, {"role": "user", "content": [{"type": "text", "text": "more"}]}],
        [HI, {"role": "assistant", "content": "a"}, {"role": "system", "content": "n"}, HI, HI],
    ],
)
def test_alternating_roles(turns):
    """For a server that insists on it, no two turns of one role are adjacent."""
    roles = [turn["role"] for turn in body(*turns, known={Quirk.ALTERNATE})["messages"]]
    assert all(one != other for one, other in itertools.pairwise(roles))


@pytest.mark.parametrize(
    "content",
    [
        "",
        [],
        [{"type": "text", "text": ""}],
        [{"type": "text", "text": " \n"}],
        [{"type": "thinking", "thinking": "hm", "signature": "theirs"}],
    ],
)
def test_turns_without_content_are_left_out(content):
    """An empty turn in the history, which servers refuse, refuses no later turn."""
    turn = {"role": "assistant", "content": content}
    sent = body(HI, turn, HI, known={Quirk.OWN_THOUGHTS_ONLY})["messages"]
    assert [each["role"] for each in sent] == ["user", "user"]


@pytest.mark.parametrize("signature", ["anyclaude-0011", "theirs", ""])
def test_foreign_thinking_is_left_out_where_it_is_refused(signature):
    """After a refusal of a signature, thinking of other servers is left out."""
    block = {"type": "thinking", "thinking": "hm", "signature": signature}
    turn = {"role": "assistant", "content": [block, {"type": "text", "text": "yes"}]}
    assert body(HI, turn, HI)["messages"][1]["content"][0] == block
    sent = body(HI, turn, HI, known={Quirk.OWN_THOUGHTS_ONLY})["messages"][1]["content"]
    assert [each["type"] for each in sent] == ["text"]
