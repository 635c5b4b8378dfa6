"""A conversation in the shape that Claude Code sends, with a sentence planted in each part.

It has 25 tools, two calls in one answer, an error, reminders beside results and on their own,
system messages in the middle, thinking, two user turns in a row after an interruption, and it is
resumed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.models import claude_tools
from tests.models.requests import Block, assistant, result, system, text, thinking, user

_PLACES: Final = ("harbour", "orchard", "lighthouse", "quarry", "meadow", "chapel", "viaduct")


@dataclass(frozen=True)
class Request:
    """The messages of one request, and the sentences that its prompt must contain, by part."""

    messages: tuple[Block, ...]
    planted: dict[str, str]
    # Sentences of thoughts in the latest tool loop; a template may leave out those before it.
    thoughts: dict[str, str]


@dataclass
class _Planter:
    """Makes the sentences that are planted."""

    planted: dict[str, str]

    def __call__(self, part: str) -> str:
        number = len(self.planted)
        place = _PLACES[number % len(_PLACES)]
        self.planted[part] = f"The {place} has {number + 11} old windows"
        return self.planted[part]


def fields(*, thinks: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of every request of the conversation, and what is planted in them."""
    plant = _Planter({})
    tools = [json.loads(tool.model_dump_json()) for tool in claude_tools.tools(bounded=False)]
    for tool in tools:
        planted = plant(f"the description of {tool['name']}")
        tool["description"] = f"Does a thing. {planted}."
    request: dict[str, Any] = {
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=0;"},
            {"type": "text", "text": f"You help with code. {plant('the system prompt')}."},
        ],
        "tools": tools,
    }
    if thinks:
        request["thinking"] = {"type": "adaptive"}
        edit = {"type": "clear_thinking_20251015", "keep": "all"}
        request["context_management"] = {"edits": [edit]}
    return request, plant.planted


def requests(before: dict[str, str]) -> Iterator[Request]:
    """The requests of the conversation, each longer than the one before.

    Args:
        before: what `fields` planted.
    """
    plant, thoughts = _Planter(dict(before)), _Planter({})

    def reminder(part: str) -> Block:
        return text(f"<system-reminder>\n{plant(part)}\n</system-reminder>")

    def use(number: int, name: str, **given: Any) -> Block:
        return {"type": "tool_use", "id": f"toolu_01AbC{number:017}", "name": name, "input": given}

    def back(number: int, words: str, **more: Any) -> Block:
        return result(f"toolu_01AbC{number:017}", words, **more)

    def request() -> Request:
        return Request(tuple(messages), dict(plant.planted), dict(thoughts.planted))

    messages = [
        user(reminder("the first reminder"), text(f"{plant('the first question')}.")),
        system(f"{plant('the system message behind the first question')}."),
    ]
    yield request()
    messages += [
        assistant(
            thinking(f"{thoughts('the first thought')}."),
            text(f"{plant('words before two calls')}."),
            use(1, "Bash", command=f'echo "{plant("the first call")}"'),
            use(2, "Read", file_path=f"/tmp/{plant('the second call')}.txt", limit=20),
        ),
        user(
            back(1, f"{plant('the first result')}\nand more", is_error=False),
            back(2, f"{plant('an error')}: no such file", is_error=True),
            reminder("a reminder behind a result"),
        ),
    ]
    yield request()
    messages += [
        assistant(
            thinking(f"{thoughts('the second thought')}."),
            use(
                3,
                "Write",
                file_path="/tmp/a.py",
                content=f'print("{{}}")\n# {plant("the text of a file")}\n</think> <b>\n',
            ),
        ),
        user(back(3, [text(plant("a result of blocks"))])),
        system(f"{plant('a system message in the middle')}."),
    ]
    yield request()
    messages += [
        assistant(thinking(f"{thoughts('the third thought')}."), text(plant("an answer"))),
        user(text(plant("the second question"))),
    ]
    thoughts.planted.clear()
    yield request()
    messages += [
        assistant(text(plant("words of an interrupted answer"))),
        user(text("[Request interrupted by user]")),
        user(text(plant("the question after the interruption"))),
    ]
    yield request()
    messages += [
        assistant(use(4, "Status")),
        user(back(4, ""), text(plant("text behind an empty result"))),
        assistant(text(plant("the last answer"))),
        system("The session was resumed."),
        user(f"{plant('the question after the resume')}"),
    ]
    yield request()
