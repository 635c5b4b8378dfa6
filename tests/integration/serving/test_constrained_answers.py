"""Constrained answers through daemon, front end and MLX worker.

The demo model knows one tool and no schema, and the tiny model writes at random. Their answers are
valid nevertheless.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import anthropic
import jsonschema
import pytest

from tests.integration.conversation import Talker, arguments
from tests.integration.service import Service
from tests.models import saved
from tests.models.claude_tools import tools
from tests.models.requests import user

_TOOLS: Final = {tool.name: tool.input_schema or {} for tool in tools()}
# All 25 tools would be a long prompt, since the tokens of the tiny model are short.
_FEW: Final = ("Bash", "TodoWrite", "Grep", "mcp__shapes__draw", "mcp__grüße__übersetzen")
_LONG: Final = {
    "type": "object",
    "properties": {"text": {"type": "string", "minLength": 4000}},
    "required": ["text"],
}
_TITLE: Final = {
    "type": "object",
    "properties": {"title": {"type": "string", "minLength": 3, "maxLength": 30}},
    "required": ["title"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with a model that writes at random."""
    model = saved.save(tmp_path_factory.mktemp("models") / "tiny", template="qwen3")
    settings = model / "tokenizer_config.json"
    known = json.loads(settings.read_text()) | {"tool_parser_type": "json_tools"}
    settings.write_text(json.dumps(known))
    with Service(model=model) as service:
        yield service.ready()


def ask(service: Service, **fields: Any) -> anthropic.types.Message:
    with Talker(service, "constrained") as talker:
        return talker.ask(user("Do something useful."), **({"max_tokens": 1500} | fields))


def offered(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "input_schema": _TOOLS[name]} for name in names]


@pytest.mark.parametrize("which", ["demo", "tiny"])
def test_a_forced_call_is_valid(which: str, request: pytest.FixtureRequest) -> None:
    """`any` gives one call of an offered tool with an input that fits its schema."""
    choice = {"type": "any", "disable_parallel_tool_use": True}
    service = request.getfixturevalue(which)
    message = ask(service, tools=offered(*_FEW), tool_choice=choice, temperature=1)
    assert message.stop_reason == "tool_use"
    [block] = message.content
    assert isinstance(block, anthropic.types.ToolUseBlock)
    jsonschema.validate(block.input, _TOOLS[block.name])


@pytest.mark.parametrize("which", ["demo", "tiny"])
def test_the_named_tool_is_called(which: str, request: pytest.FixtureRequest) -> None:
    """`tool` gives a call of that tool, although others are offered."""
    choice = {"type": "tool", "name": "mcp__shapes__draw"}
    message = ask(request.getfixturevalue(which), tools=offered(*_FEW), tool_choice=choice)
    assert [block.type for block in message.content] == ["tool_use"]
    [block] = message.content
    assert isinstance(block, anthropic.types.ToolUseBlock)
    assert block.name == "mcp__shapes__draw"
    jsonschema.validate(block.input, _TOOLS[block.name])


@pytest.mark.parametrize("which", ["demo", "tiny"])
def test_a_title_fits_its_schema(which: str, request: pytest.FixtureRequest) -> None:
    """If the request has an output format, the text of the answer is a JSON value that fits it."""
    output = {"format": {"type": "json_schema", "schema": _TITLE}}
    message = ask(request.getfixturevalue(which), output_config=output)
    assert message.stop_reason == "end_turn"
    [block] = message.content
    assert isinstance(block, anthropic.types.TextBlock)
    jsonschema.validate(json.loads(block.text), _TITLE)


def test_no_call_is_made_when_none_may_be(demo: Service) -> None:
    """`none` gives text, although the model would call the tool."""
    message = ask(demo, tools=offered("Bash"), tool_choice={"type": "none"}, max_tokens=60)
    assert [block.type for block in message.content] == ["text"]


@pytest.mark.parametrize("limit", [200, 700])
def test_a_cut_call_is_reported(tiny: Service, limit: int) -> None:
    """A call that `max_tokens` cuts off is reported as such, with the input that arrived."""
    message = ask(
        tiny,
        tools=[{"name": "Write", "input_schema": _LONG}],
        tool_choice={"type": "any"},
        temperature=1,
        max_tokens=limit,
    )
    assert message.stop_reason == "max_tokens"
    assert [block.type for block in message.content] == ["tool_use"]


def test_arguments_come_as_they_are_written(tiny: Service) -> None:
    """The input of a constrained call arrives in pieces that together are one JSON object."""
    pieces: list[str] = []
    choice = {"type": "tool", "name": "TodoWrite"}
    asked = arguments(
        user("Plan."), max_tokens=1500, tools=offered("TodoWrite"), tool_choice=choice
    )
    with Talker(tiny, "pieces") as talker, talker.messages.stream(**asked) as stream:
        for event in stream:
            if event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                pieces.append(event.delta.partial_json)
    assert len(pieces) > 10
    jsonschema.validate(json.loads("".join(pieces)), _TOOLS["TodoWrite"])
