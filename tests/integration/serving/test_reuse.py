"""Changes between requests that must cost nothing, or only what follows them."""

from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest

from tests.integration.conversation import Talker, instructions, prompt_tokens, read_tokens
from tests.integration.service import Service
from tests.models import saved
from tests.models.requests import BASH, Block, assistant, system, user

_MARKED = {"cache_control": {"type": "ephemeral"}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = saved.save(Path(tmp_path_factory.mktemp("model")), endless=True)
    with Service(model=model) as started:
        yield started.ready()


def said(answer: anthropic.types.Message) -> Block:
    """The answer as a client sends it back."""
    return assistant(*(block.model_dump(exclude_none=True) for block in answer.content))


def tool_loop(count: int, changed: str = "") -> list[Block]:
    """A conversation of `count` calls and results, the first of which reads `changed`."""
    turns = [user("Go.")]
    for number in range(count):
        call = {"type": "tool_use", "id": f"t{number}", "name": "Bash", "input": {"command": "ls"}}
        content = changed if changed and not number else f"Result {number}: " + "fine " * 30
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": content}
        turns += [assistant(call), user(result)]
    return turns


def computed(answer: anthropic.types.Message) -> int:
    return prompt_tokens(answer) - read_tokens(answer)


def test_markers_may_move(service: Service) -> None:
    """cache_control may move between messages, and the prompt is still reused."""
    rules = instructions("Markers")
    with Talker(service, "markers") as talker:
        first = talker.ask(
            user({"type": "text", "text": "One.", **_MARKED}),
            system=[{"type": "text", "text": rules, **_MARKED}],
            tools=[BASH | _MARKED],
        )
        second = talker.ask(
            user({"type": "text", "text": "One."}),
            said(first),
            user({"type": "text", "text": "Two.", **_MARKED}),
            system=[{"type": "text", "text": rules}],
            tools=[BASH],
        )
    assert read_tokens(second) >= prompt_tokens(first)


def test_a_system_message_as_a_list_and_then_as_a_string(service: Service) -> None:
    """A system message in either form gives the same prompt."""
    reminder = "Remember the rules. " * 20
    before = [user("Hello."), assistant("Hello."), user("Go on.")]
    with Talker(service, "forms") as talker:
        fields = {"system": instructions("Forms"), "tools": [BASH]}
        talker.ask(*before, system({"type": "text", "text": reminder}), **fields)
        again = talker.ask(*before, system(reminder), **fields)
    assert computed(again) == 1


def test_an_edited_result_costs_what_comes_behind_it(service: Service) -> None:
    """An edited tool result is computed with all after it, and nothing before."""
    fields = {"system": instructions("Edits"), "tools": [BASH]}
    with Talker(service, "edits") as talker:
        whole = talker.ask(*tool_loop(8), **fields)
        edited = talker.ask(*tool_loop(8, changed="[cleared]"), **fields)
        head = talker.count(*tool_loop(0), **fields)
        tail = prompt_tokens(edited) - head
    assert read_tokens(edited) >= head
    assert 0 < computed(edited) <= tail
    assert prompt_tokens(whole) > prompt_tokens(edited)


def test_a_fork_is_joined_again(service: Service) -> None:
    """A branch from the middle computes its own tokens; returning to the first computes none."""
    fields = {"system": instructions("Forks"), "tools": [BASH]}
    with Talker(service, "forks") as talker:
        trunk = talker.ask(*tool_loop(4), **fields)
        fork = talker.ask(*tool_loop(2), user("No, this way."), **fields)
        joined = talker.ask(*tool_loop(4), **fields)
    with Talker(service, "another session") as talker:
        elsewhere = talker.ask(*tool_loop(4), **fields)
    assert computed(fork) < 60
    assert computed(joined) == computed(elsewhere) == 1
    assert prompt_tokens(joined) == prompt_tokens(trunk)
