"""The Messages API of the whole service, through daemon, front end and MLX worker.

The demo model answers in words; a tiny model of random, context-sensitive weights says something
else for every prompt and does not stop by itself.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Final

import anthropic
import httpx
import pytest

from anyclaude.cache.v1 import cache_pb2
from anyclaude.mlx.blas import blas
from tests.integration import prompts
from tests.integration.conversation import (
    Talker,
    a_word_in,
    arguments,
    body,
    instructions,
    prompt_tokens,
    read_tokens,
    reused,
    text_of,
)
from tests.integration.service import WAIT_SECONDS, Service
from tests.models import saved
from tests.models.requests import BASH, Block, assistant, call, result, system, text, user

_CHUNK_TOKENS: Final = 64
_BILLING: Final = "x-anthropic-billing-header: cc_version=2.1.197; cch="
_NO_TOOL: Final[Block] = {"type": "none"}
# About two hundred chunks of prefill, of which a test waits for a few.
_LONG_PROMPT: Final = "the quick brown fox " * 1500


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with a tiny model and small prefill chunks."""
    model = saved.save(tmp_path_factory.mktemp("models") / "tiny", template="qwen3", endless=True)
    chunk = str(_CHUNK_TOKENS)
    with Service(model=model, ANYCLAUDE__MLX__PREFILL_CHUNK_TOKENS=chunk) as service:
        yield service.ready()


@pytest.fixture
def open_session() -> Iterator[Callable[[Service, str], Talker]]:
    """Opens conversations that end with the test."""
    with ExitStack() as stack:
        yield lambda service, session: stack.enter_context(Talker(service, session))


Open = Callable[[Service, str], Talker]


def test_status_lists_what_schemas_lose(demo: Service, open_session: Open) -> None:
    """A keyword that no grammar expresses is named with its tool, its property and the cause."""
    unique = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    schema = {"type": "object", "properties": {"labels": unique}}
    open_session(demo, "loosened").ask(user("Hi."), tools=[{"name": "Tag", "input_schema": schema}])

    (line,) = [line for line in demo.status().loosened_schemas if line.startswith("Tag.labels: ")]
    assert "uniqueItems" in line


def test_status_names_the_blas_of_the_worker(demo: Service) -> None:
    """It is the one of this process, since both have the same environment."""
    assert demo.poll(lambda status: status.HasField("memory")).blas == blas()


def test_the_demo_model_answers_in_words(demo: Service, open_session: Open) -> None:
    """The same text comes with and without streaming, and says how to configure a model."""
    talker = open_session(demo, "words")
    whole = talker.ask(user("Hello, who are you?"), max_tokens=200)
    with talker.messages.stream(**arguments(user("Hello, who are you?"), max_tokens=200)) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()

    assert "demo model" in text_of(whole)
    assert "ANYCLAUDE_MODEL" in text_of(whole)
    assert whole.stop_reason == "end_turn"
    assert len(pieces) > 5
    assert "".join(pieces) == text_of(streamed) == text_of(whole)
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert streamed.id != whole.id


def test_a_tool_loop_comes_to_its_end(demo: Service, open_session: Open) -> None:
    """The model calls Bash once with a harmless command, and answers after its result."""
    talker = open_session(demo, "tool-loop")
    offered: dict[str, Any] = {"tools": [BASH], "max_tokens": 200}
    question = user("Say hello.")
    first = talker.ask(question, **offered)
    (use,) = [block for block in first.content if block.type == "tool_use"]
    answered = [
        question,
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        user(result(use.id, "hello")),
    ]
    second = talker.ask(*answered, **offered)

    assert first.stop_reason == "tool_use"
    assert use.name == "Bash"
    assert str(use.input["command"]).startswith("echo")
    assert second.stop_reason == "end_turn"
    assert text_of(second)
    assert read_tokens(second) >= prompt_tokens(first)


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        ([user("hi")], {}),
        ([user("hi")], {"system": "Be short."}),
        (
            [user("hi")],
            {
                "system": [
                    text(_BILLING + "1;"),
                    text("Be short.", cache_control={"type": "ephemeral"}),
                ]
            },
        ),
        ([user("hi")], {"tools": [BASH], "system": "Be short."}),
        ([user("hi"), system("Today is Monday.")], {"tools": [BASH]}),
        (
            [
                user("hi"),
                assistant("I look.", call("toolu_1")),
                user(result("toolu_1", "a\nb")),
                system("A reminder, in the middle."),
                user("and now?"),
            ],
            {"tools": [BASH], "tool_choice": _NO_TOOL},
        ),
        ([user("hi")], {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
    ],
)
def test_counting_equals_the_usage(
    demo: Service, tiny: Service, open_session: Open, messages: list[Block], fields: dict[str, Any]
) -> None:
    """`count_tokens` equals the usage of the same request, for all kinds of content."""
    for service in (demo, tiny):
        talker = open_session(service, "count")
        # The same request without what only the official client's types refuse.
        answer = talker.ask(*messages, **({"max_tokens": 4} | fields))
        assert talker.count(*messages, **fields) == prompt_tokens(answer)


def test_a_follow_up_reuses_all_but_its_new_words(tiny: Service, open_session: Open) -> None:
    """From the second turn on only new tokens are computed."""
    talker = open_session(tiny, "follow-up")
    fields: dict[str, Any] = {"system": instructions("Follow-up"), "tools": [BASH]}
    turns = [user("What is in here?")]
    first = talker.ask(*turns, **fields)
    turns += [assistant(text_of(first) or "nothing"), user("And what else?")]
    second = talker.ask(*turns, **fields)

    assert reused(first) < 0.1
    # The answer's text need not encode to the tokens it was sampled as, so only the prompt counts.
    assert read_tokens(second) >= prompt_tokens(first) - 8
    assert reused(second) > 0.9


def test_an_unknown_model_is_answered_by_the_resident_one(
    demo: Service, open_session: Open
) -> None:
    """Any model name is answered by the same process and model."""
    before = demo.status()
    answer = open_session(demo, "unknown").ask(user("hi"), model="claude-opus-99")
    after = demo.status()
    listed = httpx.get(f"{demo.base_url}/v1/models", trust_env=False).json()

    assert answer.model == "claude-opus-99"
    assert text_of(answer)
    assert after.model == before.model
    assert [worker.pid for worker in after.workers] == [worker.pid for worker in before.workers]
    assert [model["id"] for model in listed["data"]] == ["anyclaude-demo"]


def test_max_tokens_and_stop_sequences_are_kept(tiny: Service, open_session: Open) -> None:
    """The answer ends at the limit or before the stop sequence, and names which."""
    talker = open_session(tiny, "limits")
    question = user("Tell me a story.")
    limited = talker.ask(question, max_tokens=60)
    stop = a_word_in(text_of(limited))
    stopped = talker.ask(question, max_tokens=60, stop_sequences=["never said", stop])

    assert limited.stop_reason == "max_tokens"
    assert limited.usage.output_tokens == 60
    assert stopped.stop_reason == "stop_sequence"
    assert stopped.stop_sequence == stop
    assert text_of(stopped) == text_of(limited)[: text_of(limited).index(stop)]
    assert stopped.usage.output_tokens < 60


def test_temperature_zero_is_deterministic(tiny: Service, open_session: Open) -> None:
    """Greedy answers agree whatever was cached; sampled ones differ."""
    question = user("Tell me another story.")
    greedy = [text_of(open_session(tiny, s).ask(question)) for s in ("greedy-1", "greedy-2")]
    again = text_of(open_session(tiny, "greedy-1").ask(question))
    talker = open_session(tiny, "sampled")
    sampled = [text_of(talker.ask(question, temperature=1.0)) for _ in range(3)]

    assert greedy == [again, again]
    assert len(set(sampled)) > 1


def test_max_tokens_zero_fills_the_cache(tiny: Service, open_session: Open) -> None:
    """A warm-up generates nothing, and the request that follows finds its prompt computed."""
    talker = open_session(tiny, "warm-up")
    fields: dict[str, Any] = {"system": instructions("Warm-up"), "tools": [BASH]}
    warmed = talker.ask(user("hi"), max_tokens=0, **fields)
    answer = talker.ask(user("hi"), **fields)

    assert (warmed.content, warmed.stop_reason) == ([], "max_tokens")
    assert warmed.usage.output_tokens == 0
    assert read_tokens(answer) == prompt_tokens(answer) - 1


def test_sessions_do_not_see_one_another(tiny: Service, open_session: Open) -> None:
    """Two alternating conversations give the same answers as each alone."""
    fields: dict[str, Any] = {"system": instructions("Isolation"), "tools": [BASH]}
    turns = {
        "isolated-1": [user("My word is lemon."), assistant("Noted."), user("Which word?")],
        "isolated-2": [user("My word is melon, too."), assistant("Good."), user("Which word?")],
    }
    for session, said in turns.items():
        open_session(tiny, session).ask(said[0], **fields)
    warm = {s: open_session(tiny, s).ask(*said, **fields) for s, said in turns.items()}
    assert tiny.control("cache", "prune", "--all", "--yes").code == 0
    cold = {s: open_session(tiny, s).ask(*said, **fields) for s, said in reversed(turns.items())}

    for session in turns:
        assert reused(warm[session]) > 0.8
        assert text_of(warm[session]) == text_of(cold[session])
    assert text_of(warm["isolated-1"]) != text_of(warm["isolated-2"])


def test_sessions_share_tools_and_instructions(tiny: Service, open_session: Open) -> None:
    """A second session computes its own words, not the tools and instructions of the first."""
    fields: dict[str, Any] = {"system": instructions("Shared"), "tools": [BASH]}
    open_session(tiny, "shared-1").ask(user("One."), **fields)
    answer = open_session(tiny, "shared-2").ask(user("Something else entirely."), **fields)
    assert reused(answer) > 0.9


def test_the_attribution_block_loses_nothing(tiny: Service, open_session: Open) -> None:
    """The attribution block, which differs per conversation, changes no token."""
    rules = text(instructions("Attribution"))

    def ask(session: str, words: str, build: int) -> anthropic.types.Message:
        header = text(f"{_BILLING}{build};")
        return open_session(tiny, session).ask(user(words), system=[header, rules], tools=[BASH])

    first, same, other = (
        ask("build-1", "One.", 1),
        ask("build-1", "One.", 2),
        ask("build-2", "Two.", 3),
    )

    assert reused(first) < 0.1
    assert read_tokens(same) == prompt_tokens(same) - 1
    assert reused(other) > 0.9


def test_utility_calls_leave_no_cache(tiny: Service, open_session: Open) -> None:
    """A title or classifier call is answered and leaves no cache."""
    before = _cache_names(tiny)
    answer = open_session(tiny, "utility").ask(
        user("Write a title."),
        system=instructions("Title"),
        extra_headers={"x-claude-code-request-class": "auxiliary"},
    )

    assert answer.usage.cache_creation_input_tokens == 0
    assert answer.usage.input_tokens > 100
    assert _cache_names(tiny) == before


def test_eight_requests_take_turns(tiny: Service) -> None:
    """All of eight concurrent requests begin before the first of them ends."""
    count, begun, ended = 8, [], []
    together = threading.Barrier(count)

    def ask(number: int) -> anthropic.types.Message:
        with Talker(tiny, f"together-{number}") as talker:
            together.wait(WAIT_SECONDS)
            question = arguments(user(f"Number {number}"), max_tokens=150)
            with talker.messages.stream(**question) as stream:
                next(iter(stream.text_stream))
                begun.append(time.monotonic())
                answer: anthropic.types.Message = stream.get_final_message()
                ended.append(time.monotonic())
                return answer

    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(ask, range(count)))

    assert {answer.usage.output_tokens for answer in answers} == {150}
    assert len({text_of(answer) for answer in answers}) == count
    assert max(begun) < min(ended)


def test_leaving_during_prefill_keeps_what_was_computed(tiny: Service) -> None:
    """A client that leaves stops its prefill within a chunk; its retry continues from there."""
    session, question = "left-early", body(user(_LONG_PROMPT), stream=True)
    with tiny.http() as http, Talker(tiny, "in-between") as other:
        with http.stream(
            "POST", "/v1/messages", json=question, headers=prompts.session(session)
        ) as answer:
            # The iterator is kept, since the connection closes with it.
            lines = answer.iter_lines()
            assert next(lines) == "event: message_start"
            # Eight turns of an answer, between which the long prompt has as many of its own.
            assert other.ask(user("And me?"), max_tokens=64).usage.output_tokens == 64
        _wait_idle(tiny)
        kept = sum(cache.tokens for cache in _caches(tiny) if cache.session_id == session)
        retry = body(user(_LONG_PROMPT), max_tokens=1)
        usage = http.post("/v1/messages", json=retry, headers=prompts.session(session)).json()[
            "usage"
        ]

    total = sum(usage[key] for key in usage if key.endswith("input_tokens"))
    assert 4 * _CHUNK_TOKENS <= kept < total / 2
    assert usage["cache_read_input_tokens"] == kept


def test_leaving_during_the_answer_frees_the_worker(tiny: Service) -> None:
    """A client that leaves during the answer ends its generation."""
    endless = body(user("Talk for ever."), max_tokens=30_000, stream=True)
    with tiny.http() as http:
        with http.stream("POST", "/v1/messages", json=endless) as answer:
            lines = (line for line in answer.iter_lines() if '"content_block_delta"' in line)
            assert json.loads(next(lines).removeprefix("data: "))
            assert tiny.status().running_requests == 1
        _wait_idle(tiny)
        (record,) = [
            record
            for record in tiny.control("requests", "--json").json["requests"]
            if record["outcome"] == "cancelled" and record["stream"]
        ][:1]
    assert record["status"] == 200


def _caches(service: Service) -> list[cache_pb2.Cache]:
    answer = service.stub("CacheService").ListCaches(cache_pb2.ListCachesRequest())
    return list(answer.caches)


def _cache_names(service: Service) -> set[str]:
    return {cache.name for cache in _caches(service)}


def _wait_idle(service: Service) -> None:
    service.poll(lambda status: status.running_requests == 0)
