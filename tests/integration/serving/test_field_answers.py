"""Answers to requests as people send them in the field: each kind with its variants.

Stop sequences cut exactly, whole and streamed alike. A turn that follows an interrupted answer
computes only what is new. Answers are the same alone and among others. Odd turns refuse no later
turn, and counting them gives what their usage says.
"""

import random
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance import bodies as b
from tests.conformance.endpoint import Endpoint, check_refusal, prompt_tokens, text_of
from tests.conformance.sse import parse
from tests.integration.service import Service
from tests.models.saved import save

Json = dict[str, Any]
INVALID = (400, "invalid_request_error")
GREEDY: Json = {"temperature": 0, "max_tokens": 60}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A model that writes at random, and ends only at a limit or a stop sequence."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    with Service(model=save(folder, endless=True)) as service:
        made = Endpoint(service.ready().base_url, "any", "any")
        with made.http:
            yield made


def words(seed: int, count: int) -> str:
    chooser = random.Random(seed)
    return " ".join("".join(chooser.choices(string.ascii_lowercase, k=4)) for _ in range(count))


@pytest.fixture(scope="module")
def answer(tiny: Endpoint) -> str:
    """What the model writes without a stop sequence."""
    return text_of(tiny.create(**GREEDY))


SLICES = {
    "first letter": slice(0, 1),
    "beginning": slice(0, 4),
    "over two tokens": slice(9, 17),
    "over many tokens": slice(5, 30),
    "end": slice(-5, None),
    "last letter": slice(-1, None),
    "one letter within": slice(20, 21),
    "all": slice(0, None),
}


@pytest.mark.parametrize("more", [[], ["never written"], ["\u00e9\U0001f98a", "x" * 500]], ids=len)
@pytest.mark.parametrize("part", SLICES)
def test_stop_sequences(tiny: Endpoint, answer: str, part: str, more: list[str]) -> None:
    """The text ends right before the first stop sequence, whole and streamed."""
    stop = answer[SLICES[part]]
    asked = {**GREEDY, "stop_sequences": [*more, stop]}
    whole, streamed = tiny.create(**asked), tiny.stream(**asked).message
    assert text_of(whole) == streamed.text == answer[: answer.find(stop)]
    assert whole["stop_reason"] == streamed.stop_reason == "stop_sequence"
    assert whole["stop_sequence"] == stop


@pytest.mark.parametrize(("first", "second"), [((12, 14), (10, 16)), ((10, 14), (12, 16))])
def test_stop_sequences_that_overlap(
    tiny: Endpoint, answer: str, first: tuple[int, int], second: tuple[int, int]
) -> None:
    """The one that is complete first ends the answer, in whichever order they are listed."""
    stops = [answer[slice(*first)], answer[slice(*second)]]
    for listed in (stops, stops[::-1]):
        streamed = tiny.stream(**GREEDY, stop_sequences=listed).message
        assert streamed.stop_sequence == stops[0]
        assert streamed.text == answer[: answer.find(stops[0])]


@pytest.mark.parametrize("deltas", [1, 9])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize("form", ["text", "block", "cut back", "left out"])
def test_a_turn_behind_an_interrupted_answer(
    tiny: Endpoint, deltas: int, beside: bool, form: str
) -> None:
    """The prompt and what the client repeats of the answer come from the cache."""
    seed = random.Random(f"{deltas} {beside} {form}").randrange(10_000)
    tiny.http.headers["x-claude-code-session-id"] = f"00000000-0000-4000-8000-{seed:012}"
    first = [b.user(words(seed, 300))]
    part = _interrupted(tiny, first, deltas)
    repeated: Any = {"text": part, "block": [b.text(part)], "cut back": part[:-1] or "x"}.get(form)
    said = [] if repeated is None else [b.assistant(repeated)]
    turn = [*first, *said, b.user("no, the other one")]
    with ThreadPoolExecutor(2) as pool:
        other = (
            pool.submit(tiny.create, messages=[b.user(words(seed + 1, 100))]) if beside else None
        )
        usage = tiny.create(messages=turn, max_tokens=3)["usage"]
        if other:
            other.result()
    read = usage["cache_read_input_tokens"]
    # Behind the question the template writes a few tokens, which another turn does not repeat.
    assert read > tiny.count(messages=first) - 20
    if form in ("text", "block"):
        assert read > 0.9 * prompt_tokens(usage)


def _interrupted(tiny: Endpoint, messages: list[Json], deltas: int) -> str:
    """The beginning of an answer whose client leaves after so many deltas."""
    raw = b""
    with tiny.open_stream(messages=messages, max_tokens=300) as response:
        for piece in response.iter_raw():
            raw += piece
            if raw.count(b"event: content_block_delta") >= deltas:
                break
    whole_frames = raw[: raw.rfind(b"\n\n") + 2]
    events = [frame.event for frame in parse([whole_frames])]
    return "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta")


PARALLEL: dict[str, Json] = {
    "plain": {},
    "system": {"system": "You are brief."},
    "shared beginning": {"system": words(0, 200)},
    "calls": {"tools": [b.BASH, b.READ], "tool_choice": {"type": "auto"}},
    "stop sequence": {"stop_sequences": ["e"]},
    "structured": {
        "output_config": {"format": {"type": "json_schema", "schema": {"enum": ["a", "b", "c"]}}}
    },
}


@pytest.mark.parametrize("form", PARALLEL)
def test_answers_of_sixteen_at_once(tiny: Endpoint, form: str) -> None:
    """Greedy answers are the same alone and among sixteen that run together."""

    def ask(number: int) -> Json:
        messages = [b.user(words(number, 20 + number))]
        fields = {"temperature": 0, "max_tokens": 12, **PARALLEL[form]}
        return tiny.create(messages=messages, **fields)

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(16)))
    alone = [ask(number) for number in range(16)]
    assert [each["content"] for each in together] == [each["content"] for each in alone]


USE = b.assistant([b.call("a"), b.call("b")])
ODD_TURNS = {
    "reversed results": [USE, b.user([b.result("b"), b.result("a")])],
    "a result is missing": [USE, b.user([b.result("a")])],
    "no results": [USE, b.user("Stop.")],
    "a result twice": [USE, b.user([b.result("a"), b.result("b"), b.result("a", "other")])],
    "an orphan": [b.user([b.result("z")])],
    "results in two turns": [USE, b.user([b.result("a")]), b.user([b.result("b")])],
    "words before results": [USE, b.user([b.text("So."), b.result("a"), b.result("b")])],
    "text behind a call": [b.assistant([b.call("a"), b.text("after")]), b.user([b.result("a")])],
    "text between calls": [
        b.assistant([b.call("a"), b.text("and"), b.call("b")]),
        b.user([b.result("a"), b.result("b")]),
    ],
    "one id twice": [b.assistant([b.call("a"), b.call("a")]), b.user([b.result("a")])],
    "a call of an unknown tool": [b.assistant([b.call("a", name="Gone")]), b.user([b.result("a")])],
    "a call is the last": [USE],
    "redacted thinking": [
        b.assistant([{"type": "redacted_thinking", "data": "x"}, b.text("y")]),
        b.user("Go on."),
    ],
    "foreign thinking": [
        b.assistant([{"type": "thinking", "thinking": "t", "signature": "s"}, b.text("y")]),
        b.user("Go on."),
    ],
    "thinking without a signature": [
        b.assistant([{"type": "thinking", "thinking": "t"}, b.call("a")]),
        b.user([b.result("a")]),
    ],
    "no content": [USE, b.user([{"type": "tool_result", "tool_use_id": "a"}])],
    "null content": [USE, b.user([b.result("a", None)])],
    "an empty list": [USE, b.user([b.result("a", [])])],
    "an empty text": [USE, b.user([b.result("a", [b.text("")]), b.result("b", "")])],
    "an error": [USE, b.user([b.result("a", "no", is_error=True), b.result("b", is_error=None)])],
    "an image": [USE, b.user([b.result("a", [b.image()]), b.result("b")])],
    "two user turns": [b.user("One."), b.user("Two.")],
    "two assistant turns": [b.assistant("One."), b.assistant("Two."), b.user("Go.")],
    "an empty turn": [b.assistant([]), b.user("Go.")],
    "an empty text turn": [b.assistant([b.text("")]), b.user("Go.")],
    "blanks at the end": [b.user("  \n")],
    "blanks only": [b.assistant("  \n"), b.user("Go.")],
    "assistant first": [b.assistant("Hello."), b.user("Go.")],
    "input as text": [b.assistant([{**b.call("a"), "input": "{}"}]), b.user([b.result("a")])],
    "input is null": [b.assistant([{**b.call("a"), "input": None}]), b.user([b.result("a")])],
    "no id": [b.assistant([{"type": "tool_use", "name": "Bash", "input": {}}]), b.user("Go.")],
}


@pytest.mark.parametrize("form", ODD_TURNS)
def test_odd_turns(tiny: Endpoint, form: str) -> None:
    """They are answered and counted alike, or refused as the API does; never an error of ours."""
    asked = {"messages": [b.user("Go."), *ODD_TURNS[form]], "tools": [b.BASH]}
    response = tiny.post(**asked, max_tokens=1)
    if response.status_code != 200:
        check_refusal(response, *INVALID)
        return
    assert prompt_tokens(response.json()["usage"]) == tiny.count(**asked)


STRICT: dict[str, Json] = {
    "two tools of one name": {"tools": [b.BASH, {**b.READ, "name": "Bash"}]},
    "one tool twice": {"tools": [b.BASH, b.BASH]},
    "a published tool of the same name": {
        "tools": [{"type": "bash_20250124", "name": "bash"}, {**b.BASH, "name": "bash"}]
    },
    "any without tools": {"tool_choice": {"type": "any"}},
    "any with no tools": {"tool_choice": {"type": "any"}, "tools": []},
    "a tool without tools": {"tool_choice": {"type": "tool", "name": "Bash"}},
    "another tool": {"tools": [b.BASH], "tool_choice": {"type": "tool", "name": "Read"}},
    "a tool in other letters": {"tools": [b.BASH], "tool_choice": {"type": "tool", "name": "bash"}},
    "empty stop sequence": {"stop_sequences": ["", "\n"]},
    "blank stop sequence": {"stop_sequences": [" "]},
    "stop sequence of a number": {"stop_sequences": [7]},
    "stop sequences as a text": {"stop_sequences": "END"},
    "empty last message": {"messages": [b.user([])]},
    "empty last text": {"messages": [b.user("")]},
    "last of an empty block": {"messages": [b.user([b.text("")])]},
    "no messages": {"messages": []},
    "a role of another API": {"messages": [{"role": "tool", "content": "x"}]},
    "no role": {"messages": [{"content": "x"}]},
    "no content": {"messages": [{"role": "user"}]},
    "a number as content": {"messages": [b.user(7)]},
    "a block without a type": {"messages": [b.user([{"text": "x"}])]},
    "a text without text": {"messages": [b.user([{"type": "text"}])]},
    "a tool without a name": {"tools": [{"input_schema": {"type": "object"}}]},
    "a tool as a text": {"tools": ["Bash"]},
    "tools as an object": {"tools": {"Bash": {}}},
    "no tokens": {"max_tokens": -1},
    "a temperature above the range": {"temperature": 2.5},
    "a stream that is no flag": {"stream": "maybe"},
    "a system prompt as a number": {"system": 7},
}


@pytest.mark.parametrize("form", STRICT)
def test_what_the_api_refuses(tiny: Endpoint, form: str) -> None:
    """It is refused with words that name the field, before any model works on it."""
    message = check_refusal(tiny.post(**STRICT[form]), *INVALID)
    field = next(iter(STRICT[form])).partition("_")[0].rstrip("s")
    assert field in message, message
