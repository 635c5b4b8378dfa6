"""Tools that a conversation gets while it runs."""

import json
from collections.abc import Iterator
from typing import Any, Final

import anthropic
import jsonschema
import pytest

from tests.integration.conversation import Talker, instructions, prompt_tokens, read_tokens
from tests.integration.service import Service
from tests.models import saved
from tests.models.pdf import pdf_file
from tests.models.requests import BASH, Block, assistant, result, system, user
from tests.unit.messages.test_readable import encoded, in_base64

_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Rome"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
_FORECAST: Final = {"name": "Forecast", "description": "Weather.", "input_schema": _SCHEMA}
_DEFERRED: Final = {**_FORECAST, "defer_loading": True}
_SEARCH: Final = {**BASH, "name": "ToolSearch"}
_ASKED: Final = {
    "type": "tool_use",
    "id": "t1",
    "name": "ToolSearch",
    "input": {"command": "weather"},
}


# The start of an answer that the prompt ends with; another one than the model's stands there later.
_ANSWER_START_TOKENS: Final = 8


def _added(**tool: Any) -> Block:
    return system({"type": "tool_addition", "tool": tool})


# What the second turn adds behind the first question, and the tools that it declares.
_WAYS: Final[dict[str, tuple[list[Block], list[Block]]]] = {
    "defined in a system message": (
        [assistant("Hm."), user("And?"), _added(type="tool_definition", definition=_FORECAST)],
        [],
    ),
    "declared late and named in a system message": (
        [assistant("Hm."), user("And?"), _added(type="tool_reference", name="Forecast")],
        [_DEFERRED],
    ),
    "declared late and found by a search": (
        [
            assistant(_ASKED),
            user(result("t1", [{"type": "tool_reference", "tool_name": "Forecast"}])),
        ],
        [_DEFERRED],
    ),
    "declared late, before the others": (
        [assistant("Hm."), user("And?"), _added(name="Forecast")],
        [_DEFERRED, {**_DEFERRED, "name": "Another"}],
    ),
    "defined, withdrawn and defined again": (
        [
            assistant("Hm."),
            user("And?"),
            _added(type="tool_definition", definition=_FORECAST),
            assistant("Hm."),
            user("No."),
            system({"type": "tool_removal", "tool": {"name": "Forecast"}}),
            assistant("Hm."),
            user("Yes."),
            _added(type="tool_definition", definition=_FORECAST),
        ],
        [],
    ),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with a model that writes at random; it reads one page of a PDF."""
    model = saved.save(tmp_path_factory.mktemp("models") / "tiny", template="qwen3")
    settings = model / "tokenizer_config.json"
    known = json.loads(settings.read_text()) | {"tool_parser_type": "json_tools"}
    settings.write_text(json.dumps(known))
    with Service(model=model, ANYCLAUDE__DOCUMENTS__PDF_MAX_PAGES="1") as started:
        yield started.ready()


@pytest.mark.parametrize("way", _WAYS)
def test_a_later_tool_costs_its_own_tokens(service: Service, way: str) -> None:
    """The turn that brings a tool computes what it adds; the tool can be called, by its schema."""
    added, later = _WAYS[way]
    first = user("Begin.")
    before, after = [BASH, _SEARCH], [*later, BASH, _SEARCH]
    fields = {"system": instructions(way)}
    with Talker(service, way) as talker:
        begun = talker.ask(first, tools=before, **fields)
        choice = {"type": "tool", "name": "Forecast"}
        called = talker.ask(
            first, *added, tools=after, tool_choice=choice, max_tokens=200, **fields
        )
        next_turn = talker.ask(
            first,
            *added,
            assistant(*(block.model_dump(exclude_none=True) for block in called.content)),
            user(result(called.content[-1].id)),
            tools=after,
            **fields,
        )
    computed = prompt_tokens(called) - read_tokens(called)
    print(f"{way}: {computed} of {prompt_tokens(called)} tokens computed")
    assert computed <= prompt_tokens(called) - prompt_tokens(begun) + _ANSWER_START_TOKENS
    [block] = called.content
    assert isinstance(block, anthropic.types.ToolUseBlock)
    assert block.name == "Forecast"
    jsonschema.validate(block.input, _SCHEMA)
    assert read_tokens(next_turn) >= prompt_tokens(called) - _ANSWER_START_TOKENS


def test_the_settings_bound_the_documents_of_this_worker(service: Service) -> None:
    """The worker reads the pages of a PDF that its settings allow."""
    pages = ("first",), ("first", "later " * 100)
    with Talker(service, "documents") as talker:
        one, two = (talker.count(user(in_base64(encoded(pdf_file(some))))) for some in pages)
    assert one < two < one + 100
