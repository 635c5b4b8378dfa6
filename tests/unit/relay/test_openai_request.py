"""Messages requests as chat completions."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.messages.errors import ApiError
from anyclaude.messages.requests import parse_messages_request
from anyclaude.relay.dialect import Target
from anyclaude.relay.openai.dialect import OpenAiDialect
from anyclaude.relay.quirks import IMAGES, Quirk, Quirks
from anyclaude.runtime.upstreams import UpstreamSettings
from tests.models.odd_blocks import BLOCKS

HI = {"role": "user", "content": "hi"}
TOOL = {"name": "Bash", "description": "Runs.", "input_schema": {"type": "object"}}


def body(*messages, quirks=Quirks(), settings=None, max_tokens=None, model="served", **fields):  # noqa: B008
    raw = {"model": "m", "max_tokens": 100, "messages": list(messages) or [HI], **fields}
    request = parse_messages_request(json.dumps(raw).encode())
    target = Target(UpstreamSettings(**settings or {}), model, quirks, max_tokens)
    return OpenAiDialect().body(request, raw, target)


def roles(built):
    return [message["role"] for message in built["messages"]]


def test_the_system_prompt_comes_first_without_the_attribution():
    """System blocks are joined, without the one that differs per conversation."""
    built = body(
        system=[
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=1"},
            {"type": "text", "text": "You are.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Be brief."},
        ]
    )
    assert built["messages"][0] == {"role": "system", "content": "You are.\n\nBe brief."}


def test_string_and_list_are_alike():
    """Content as a string and as a list gives the same request, so the server's cache is used."""
    text = [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]
    assert body(HI, system="S") == body(
        {"role": "user", "content": text}, system=[{"type": "text", "text": "S"}]
    )


def test_system_messages_within_stay_in_place():
    """Only a system message directly after the first user turn is moved."""
    later = {"role": "system", "content": "plan mode"}
    turns = [HI, {"role": "system", "content": "agents"}, {"role": "assistant", "content": "yes"}]
    built = body(*turns, HI, later, system="S")
    assert roles(built) == ["system", "user", "assistant", "user", "system"]
    assert built["messages"][0]["content"] == "S\n\nagents"
    assert built["messages"][-1]["content"] == "plan mode"


def test_system_messages_for_servers_that_refuse_them():
    """They become reminders in user turns, and adjacent user turns are merged."""
    turns = [HI, {"role": "assistant", "content": "yes"}, HI, {"role": "system", "content": "now"}]
    built = body(*turns, quirks=Quirks(frozenset({Quirk.SYSTEM_AS_USER})))
    assert roles(built) == ["user", "assistant", "user"]
    assert built["messages"][-1]["content"] == ("hi\n\n<system-reminder>\nnow\n</system-reminder>")


def test_calls_and_results_keep_their_order():
    """The results of a turn keep their order, and come before its words."""
    call = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}
    other = {"type": "tool_use", "id": "t2", "name": "Bash", "input": {}}
    built = body(
        HI,
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, call, other]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "a"},
                {"type": "text", "text": "between"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [{"type": "text", "text": "no such file"}],
                    "is_error": True,
                },
                {"type": "text", "text": "after"},
            ],
        },
    )
    assert built["messages"][1] == {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {
                "id": "t1",
                "type": "function",
                "function": {"name": "Bash", "arguments": '{"command": "ls"}'},
            },
            {"id": "t2", "type": "function", "function": {"name": "Bash", "arguments": "{}"}},
        ],
    }
    assert built["messages"][2:] == [
        {"role": "tool", "tool_call_id": "t1", "content": "a"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no such file"},
        {"role": "user", "content": "between\n\nafter"},
    ]


IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"},
}


@pytest.mark.parametrize(
    "target", [{"quirks": Quirks(dropped_once=frozenset({IMAGES}))}, {"takes_images": False}]
)
def test_images_for_a_server_that_reads_text_only(target):
    """A model without vision reads that an image is there, also in a tool's result."""
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [IMAGE]}
    call = {"type": "tool_use", "id": "t1", "name": "Read", "input": {}}
    raw = {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "see"}, IMAGE]},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ],
    }
    request = parse_messages_request(json.dumps(raw).encode())
    made = Target(UpstreamSettings(), "served", **{"quirks": Quirks(), **target})
    seen, _, read = OpenAiDialect().body(request, raw, made)["messages"]
    assert seen["content"].startswith("see\n\n[An image (image/png).")
    assert read["content"].startswith("[An image (image/png).")


def test_a_server_without_system_messages():
    """Its first turn begins with the system prompt, and later system messages are reminders."""
    quirks = Quirks(frozenset({Quirk.SYSTEM_IN_FIRST_TURN}))
    built = body(
        HI,
        {"role": "assistant", "content": "yes"},
        HI,
        {"role": "system", "content": "plan"},
        system="S",
        quirks=quirks,
    )
    assert roles(built) == ["user", "assistant", "user"]
    assert built["messages"][0]["content"] == "S\n\nhi"
    assert "plan" in built["messages"][2]["content"]


def test_images_go_as_data_addresses():
    """Images become data URLs; an image of a result follows the result."""
    image = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"},
    }
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [image]}
    built = body(
        {"role": "user", "content": [{"type": "text", "text": "see"}, image]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "Read", "input": {}}],
        },
        {"role": "user", "content": [result]},
    )
    assert built["messages"][0]["content"] == [{"type": "text", "text": "see"}, part]
    assert built["messages"][2]["content"] == "(image below)"
    assert built["messages"][3] == {"role": "user", "content": [part]}


def test_thoughts_go_along():
    """Earlier thinking is sent back to the model, whoever signed it."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "foreign"}
    words = {"type": "text", "text": "yes"}
    built = body(HI, {"role": "assistant", "content": [thought, words]}, HI)
    assert built["messages"][1] == {
        "role": "assistant",
        "content": "yes",
        "reasoning_content": "hm",
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "Bash"}, {"type": "function", "function": {"name": "Bash"}}),
    ],
)
def test_tool_choice(choice, expected):
    """Every tool_choice is translated, and server tools are left out."""
    search = {"type": "web_search_20250305", "name": "web_search"}
    fields = {"tool_choice": choice} if choice else {}
    built = body(tools=[TOOL, search], **fields)
    assert built["tool_choice"] == expected
    assert [tool["function"]["name"] for tool in built["tools"]] == ["Bash"]


def test_a_tool_is_forced_without_its_name():
    """If tool_choice must be a string, only the forced tool is offered."""
    built = body(
        tools=[TOOL, {**TOOL, "name": "Read"}],
        tool_choice={"type": "tool", "name": "Read"},
        quirks=Quirks(frozenset({Quirk.TOOL_CHOICE_WORD})),
    )
    assert built["tool_choice"] == "required"
    assert [tool["function"]["name"] for tool in built["tools"]] == ["Read"]


def test_the_rest_of_a_request():
    """Limits, sampling, stop sequences, parallel calls and a schema get their fields."""
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    built = body(
        stop_sequences=["</block>"],
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        tools=[TOOL],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        output_config={"format": {"type": "json_schema", "schema": schema}},
        settings={"max_output_tokens": 50, "extra_body": {"seed": 1}},
    )
    assert (built["model"], built["max_tokens"], built["stream"]) == ("served", 50, True)
    assert (built["stop"], built["temperature"], built["top_p"]) == (["</block>"], 0.5, 0.9)
    assert (built["top_k"], built["seed"], built["parallel_tool_calls"]) == (40, 1, False)
    assert built["response_format"]["json_schema"]["schema"] == schema
    assert built["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("kind", "thinking", "expected"),
    [
        ("vllm", None, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("vllm", {"type": "adaptive"}, {}),
        ("lmstudio", None, {}),
        ("openrouter", None, {"reasoning": {"enabled": False}}),
        ("openrouter", {"type": "enabled"}, {"reasoning": {"effort": "high"}}),
    ],
)
def test_thinking_is_asked_for_as_each_kind_knows(kind, thinking, expected):
    """Thinking is turned on or off by the setting of each kind of server."""
    built = body(thinking=thinking, output_config={"effort": "high"}, settings={"kind": kind})
    fields = ("chat_template_kwargs", "reasoning")
    assert {key: built[key] for key in fields if key in built} == expected


def test_what_was_refused_is_left_out():
    """A field that the server refused is not sent again."""
    built = body(top_k=4, quirks=Quirks(dropped=frozenset({"top_k", "stream_options"})))
    assert not {"top_k", "stream_options"} & set(built)


def test_short_ids_agree():
    """A call and its result have the same id when ids are shortened to nine characters."""
    call = {"type": "tool_use", "id": "toolu_0123456789", "name": "Bash", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_0123456789", "content": "a"}
    built = body(
        HI,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
        quirks=Quirks(frozenset({Quirk.SHORT_TOOL_IDS})),
    )
    short = built["messages"][1]["tool_calls"][0]["id"]
    assert len(short) == 9
    assert built["messages"][2]["tool_call_id"] == short


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}},
        {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}},
        {"type": "container_upload", "file_id": "file_1"},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "bash_code_execution_tool_result", "tool_use_id": "s", "content": {}},
        {"type": "hologram", "data": "AAAA"},
    ],
    ids=lambda block: block["type"],
)
def test_no_block_refuses_the_conversation(block):
    """Content that the dialect cannot express becomes a sentence, and never a refusal."""
    sent = body({"role": "user", "content": [{"type": "text", "text": "look"}, block]})
    assert sent["messages"][-1]["content"].startswith("look\n\n[")


@pytest.mark.parametrize(
    ("refusal", "quirk"),
    [
        ("System message must be at the beginning.", Quirk.SYSTEM_AS_USER),
        ("Error rendering prompt with jinja template", Quirk.SYSTEM_AS_USER),
        ("Conversation roles must alternate user/assistant", Quirk.ALTERNATE),
        ("Invalid tool_choice type: 'object'. Supported: none, auto", Quirk.TOOL_CHOICE_WORD),
        ("Tool call id was x but must be a-z, with a length of 9.", Quirk.SHORT_TOOL_IDS),
        ("Unsupported 'max_tokens'. Use 'max_completion_tokens'", Quirk.MAX_COMPLETION_TOKENS),
    ],
)
def test_refusals_are_learned(refusal, quirk):
    """Each known message of a refusal is learned once."""
    learned = Quirks().learn(refusal, {})
    assert learned is not None
    assert learned.known == {quirk}
    assert learned.learn(refusal, {}) is None


def test_a_refused_field_is_learned_only_when_it_was_sent():
    """The name of a field that was not sent changes nothing."""
    learned = Quirks().learn("Unrecognized request argument: top_k", {"top_k": 1})
    assert learned is not None
    assert learned.dropped == {"top_k"}
    assert Quirks().learn("Unrecognized request argument: top_k", {}) is None


@settings(max_examples=500, deadline=None)
@given(st.lists(BLOCKS, min_size=1, max_size=3), st.sampled_from(["user", "assistant", "system"]))
def test_odd_blocks_are_translated_or_refused(blocks, role):
    """Any block is translated, or its request is refused with a message."""
    with suppress(ApiError):
        body(HI, {"role": role, "content": blocks})
