"""Reasoning state: what servers want back, carried in the signature of a thinking block."""

import pytest

from anyclaude.relay.state import ReasoningState, read_state, state_of
from tests.unit.relay.test_openai_answer import answer, call, delta
from tests.unit.relay.test_openai_request import HI, body

SIGNED = {"google": {"thought_signature": "c2ln"}}
TEXT = {"type": "reasoning.text", "index": 0}
SECRET = {"type": "reasoning.encrypted", "data": "c2VjcmV0", "index": 1}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "x"}]}


def signed(**fields):
    return {**call(0, "c1", "Read", "{}"), **fields}


def after(message):
    """The assistant's message in the request that follows."""
    turn = {"role": "assistant", "content": message["content"]}
    return body(HI, turn, RESULT, model="")["messages"][1]


@pytest.mark.parametrize(
    ("chunks", "details"),
    [
        ([[{**TEXT, "text": "a"}], [{**TEXT, "text": "b"}]], [{**TEXT, "text": "ab"}]),
        ([[{**TEXT, "text": "a"}], [{**TEXT, "text": "", "signature": "s"}]],
         [{**TEXT, "text": "a", "signature": "s"}]),
        ([[{**TEXT, "text": "a", "signature": None}], [{**TEXT, "signature": "s"}]],
         [{**TEXT, "text": "a", "signature": "s"}]),
        ([[{**TEXT, "text": "a"}], [{**TEXT, "signature": "s"}], [SECRET]],
         [{**TEXT, "text": "a", "signature": "s"}, SECRET]),
        ([[SECRET]], [SECRET]),
        ([[SECRET], [SECRET]], [SECRET]),
        ([[{**TEXT, "text": "a"}, SECRET]], [{**TEXT, "text": "a"}, SECRET]),
        ([[{"type": "reasoning.summary", "summary": "a", "index": 0}],
          [{"type": "reasoning.summary", "summary": "b", "index": 0}]],
         [{"type": "reasoning.summary", "summary": "ab", "index": 0}]),
        ([[{**TEXT, "text": "a"}], [{**TEXT, "text": "b", "index": 1}]],
         [{**TEXT, "text": "a"}, {**TEXT, "text": "b", "index": 1}]),
    ],
)  # fmt: skip
def test_reasoning_details(chunks, details):
    """The pieces of reasoning_details are joined, and come back as one list."""
    told = [delta(reasoning_details=pieces) for pieces in chunks]
    message = answer(*told, delta(tool_calls=[call(0, "c1", "Read", "{}")]), delta("tool_calls"))
    assert after(message)["reasoning_details"] == details


@pytest.mark.parametrize(
    "fields",
    [
        {"extra_content": SIGNED},
        {"thought_signature": "c2ln"},
        {"provider_specific_fields": {"thought_signature": "c2ln"}},
        {"function": {"name": "Read", "arguments": "{}", "thought_signature": "c2ln"}},
        {"extra_content": SIGNED, "id": "functions.Read:0"},
    ],
)
def test_state_of_a_call(fields):
    """State that comes with a call goes back with the same call, whatever its id is."""
    message = answer(delta(tool_calls=[signed(**fields)]), delta("tool_calls"))
    (back,) = after(message)["tool_calls"]
    for key, value in fields.items():
        if key != "function":
            assert back[key] == value
    assert back["function"].get("thought_signature") == fields.get("function", {}).get(
        "thought_signature"
    )


@pytest.mark.parametrize(
    "chunks",
    [
        [delta(reasoning="hm"), delta(tool_calls=[signed(extra_content=SIGNED)])],
        [delta(tool_calls=[signed(extra_content=SIGNED)])],
        [delta(content="I look."), delta(tool_calls=[signed(extra_content=SIGNED)])],
        [delta(reasoning="hm"), delta(content="I look."), delta(reasoning_details=[SECRET])],
        [delta(tool_calls=[signed()]), delta(reasoning_details=[SECRET])],
        [delta(extra_content=SIGNED, content="done")],
    ],
)
def test_state_at_any_place(chunks):
    """State reaches the client wherever it comes, and thinking precedes the calls it belongs to."""
    message = answer(*chunks, delta("stop"))
    state = state_of(message["content"], "")
    assert state is not None
    assert not state.is_empty
    texts = [block["thinking"] for block in message["content"] if block["type"] == "thinking"]
    assert "".join(texts) == ("hm" if "reasoning" in str(chunks[0]) else "")


def test_state_goes_back_only_to_its_model():
    """After a switch of models, the state of the other one is left out."""
    message = answer(delta(tool_calls=[signed(extra_content=SIGNED)]), delta("tool_calls"))
    turn = {"role": "assistant", "content": message["content"]}
    sent = body(HI, turn, RESULT, model="other")["messages"][1]
    assert "extra_content" not in sent["tool_calls"][0]


@pytest.mark.parametrize(
    "signature",
    ["", "theirs", "anyclaude-00", "anyclaude-state-", "anyclaude-state-!", "anyclaude-state-e", 7],
)
def test_other_signatures_hold_no_state(signature):
    """Signatures of others, and damaged ones, are passed over."""
    assert read_state({"type": "thinking", "thinking": "", "signature": signature}) is None


def test_a_state_survives_the_way():
    """What is read from a signature is what was written to it."""
    state = ReasoningState("m", [SECRET], SIGNED, {"c1": {"extra_content": SIGNED}}, "x")
    assert read_state({"signature": state.signature()}) == state
