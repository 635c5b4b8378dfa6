"""Identity: session, agent and class, from every form in which clients send it."""

import json
from typing import Any

import pytest

from anyclaude.messages.identity import identify
from anyclaude.messages.requests import MessagesRequest
from anyclaude.worker.v1 import worker_pb2 as worker

UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
TOOLS = [{"name": "Bash", "input_schema": {"type": "object"}}]


def request(**fields: Any) -> MessagesRequest:
    return MessagesRequest.model_validate(
        {
            "model": "m",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "hello"}],
            "tools": TOOLS,
            **fields,
        }
    )


def session(user_id: object, **headers: str) -> str:
    return identify(headers, request(metadata={"user_id": user_id})).session_id


def class_of(headers: dict[str, str], **fields: Any) -> worker.RequestClass:
    return identify(headers, request(**fields)).request_class


def test_session_header_comes_first() -> None:
    """The session header has priority over metadata."""
    headers = {"x-claude-code-session-id": "from-header"}
    made = identify(headers, request(metadata={"user_id": f"user_a_account_b_session_{UUID}"}))
    assert made.session_id == "from-header"


@pytest.mark.parametrize(
    "user_id",
    [
        json.dumps({"device_id": "d", "account_uuid": "", "session_id": UUID}),
        f"user_{'a' * 64}_account__session_{UUID}",
        f"user_{'a' * 64}_account_{UUID}_session_{UUID}",
    ],
)
def test_session_from_metadata(user_id: str) -> None:
    """Both forms of metadata.user_id give the session."""
    assert session(user_id) == UUID


@pytest.mark.parametrize("user_id", [None, 7, "", "someone", "{", "[]", "{}", '{"session_id": 7}'])
def test_no_session(user_id: object) -> None:
    """Metadata without a session is accepted, and gives no session."""
    assert session(user_id) == ""


def test_unsafe_session_becomes_a_digest() -> None:
    """A session id that is not safe as a name is replaced by its digest."""
    made = identify({"x-claude-code-session-id": "../../etc"}, request()).session_id
    assert made.startswith("sha256-")
    assert made == identify({"x-claude-code-session-id": "../../etc"}, request()).session_id
    assert made != identify({"x-claude-code-session-id": "../../usr"}, request()).session_id


def test_agents() -> None:
    """Agent ids are read from their headers, and such a request is a subagent's."""
    headers = {"x-claude-code-agent-id": "a1", "x-claude-code-parent-agent-id": "a0"}
    made = identify(headers, request())
    assert (made.agent_id, made.parent_agent_id) == ("a1", "a0")
    assert made.request_class == worker.REQUEST_CLASS_SUBAGENT


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("main", worker.REQUEST_CLASS_MAIN),
        ("subagent", worker.REQUEST_CLASS_SUBAGENT),
        ("workflow", worker.REQUEST_CLASS_SUBAGENT),
        ("compaction", worker.REQUEST_CLASS_COMPACTION),
        ("auxiliary", worker.REQUEST_CLASS_UTILITY),
        ("Auxiliary ", worker.REQUEST_CLASS_UTILITY),
        ("something-new", worker.REQUEST_CLASS_MAIN),
    ],
)
def test_class_header(named: str, expected: worker.RequestClass) -> None:
    """The class header decides; an unknown class is ignored."""
    assert class_of({"x-claude-code-request-class": named}) == expected


def test_class_header_beats_recognition() -> None:
    """A short request whose header says main is main."""
    assert class_of({"x-claude-code-request-class": "main"}, tools=[], max_tokens=1) == (
        worker.REQUEST_CLASS_MAIN
    )


CLAUDE_CODE = {"user-agent": "claude-cli/2.1.329 (external, cli)"}
JSON_SCHEMA = {"format": {"type": "json_schema", "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    "fields",
    [
        {"system": "x" * 4000, "tools": [], "output_config": JSON_SCHEMA},
        {"tools": [], "max_tokens": 1},
        {"stop_sequences": ["</block>"]},
    ],
    ids=["title", "quota probe", "classifier"],
)
def test_utility_calls_are_recognised(fields: dict[str, Any]) -> None:
    """Title, quota probe and classifier are recognised by their shape."""
    assert class_of(CLAUDE_CODE, **fields) == worker.REQUEST_CLASS_UTILITY


def test_short_call_of_claude_code_is_utility() -> None:
    """A short request of Claude Code without tools is a utility call."""
    headers = {"x-claude-code-session-id": "s", **CLAUDE_CODE}
    assert class_of(headers, tools=[]) == worker.REQUEST_CLASS_UTILITY


SESSION = {"user_id": json.dumps({"session_id": UUID})}


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {}),
        ({"x-claude-code-session-id": "s"}, {}),
        ({"user-agent": "Anthropic/Python 2.11.0"}, {"metadata": SESSION}),
        ({}, {"metadata": {"user_id": f"user_a_account__session_{UUID}"}}),
        ({"x-claude-code-session-id": "s", "user-agent": "my-agent/1"}, {"max_tokens": 0}),
        ({"user-agent": "OpenAI/Python 2.8.0"}, {"output_config": JSON_SCHEMA}),
    ],
    ids=["no session", "header", "metadata", "old metadata", "warm-up", "schema"],
)
def test_a_short_beginning_is_a_conversation(
    headers: dict[str, str], fields: dict[str, Any]
) -> None:
    """A short first request is cached, although it has a session id and no tools."""
    assert class_of(headers, tools=[], **fields) == worker.REQUEST_CLASS_MAIN


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": [], "max_tokens": 0},
        {"max_tokens": 1},
        {"tools": [], "max_tokens": 1, "system": "x" * 5000},
        {"output_config": JSON_SCHEMA},
        {"output_config": {"effort": "high"}},
    ],
    ids=["tools", "warm-up", "probe with tools", "long probe", "schema with tools", "effort"],
)
def test_conversations_are_not_utility(fields: dict[str, Any]) -> None:
    """Requests whose caches are worth keeping are not classed as utility."""
    headers = {"x-claude-code-session-id": "s"}
    assert class_of(headers, **fields) == worker.REQUEST_CLASS_MAIN
