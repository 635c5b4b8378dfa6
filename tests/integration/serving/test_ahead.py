"""Computing ahead on the whole service: the next question, an interruption, a prune, a stop."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.prompts import events, session
from tests.integration.service import WAIT_SECONDS, Service
from tests.models import saved
from tests.models.requests import BASH, Block, assistant, call, result, text, thinking, user
from tests.models.tokenizers import tokenizer

_QUESTION = "And what is in the second one, please?"
_THOUGHT = "I had better look into the folder and read what is there. " * 8


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose model drops earlier thinking at each question.

    Chunks are small, so that computing ahead takes long enough to be interrupted.
    """
    with Service(
        model=saved.save(Path(tmp_path_factory.mktemp("model")), template="qwen3"),
        ANYCLAUDE__MLX__COMPUTE_AHEAD="always",
        ANYCLAUDE__MLX__COMPUTE_AHEAD_AFTER_SECONDS="0.05",
        ANYCLAUDE__MLX__PREFILL_CHUNK_TOKENS="16",
    ) as running:
        yield running.ready()


def _loop(steps: int, question: str) -> list[Block]:
    """A question and a tool loop with long thinking, which the template drops later."""
    messages = [user(question)]
    for step in range(steps):
        name = f"toolu_{step}"
        messages += [
            assistant(thinking(_THOUGHT), text("Looking."), call(name)),
            user(result(name, f"file {step} " * 20)),
        ]
    return messages


def _ask(service: Service, name: str, messages: list[Block]) -> Any:
    asked = {
        "model": "any",
        "max_tokens": 100,
        # A random model may repeat itself for ever; an answer with one possible text ends.
        "tool_choice": {"type": "none"},
        "output_config": {"format": {"type": "json_schema", "schema": {"enum": ["done"]}}},
        "system": "Be brief. " * 40,
        "tools": [BASH],
        "messages": messages,
    }
    with service.http() as client:
        answer = client.post("/v1/messages", json=asked, headers=session(name))
    assert answer.status_code == 200, answer.text
    answered = answer.json()
    # Only after an answer that ended by itself a next question is expected.
    assert answered["stop_reason"] == "end_turn"
    return answered


def _metrics(service: Service, *names: str) -> list[float]:
    """Figures of the worker, which are left out while it does not respond in time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with service.http() as client:
            lines = client.get("/metrics").text.splitlines()
        values = dict(line.split()[:2] for line in lines if not line.startswith("#"))
        if all(f"anyclaude_{name}_total" in values for name in names):
            return [float(values[f"anyclaude_{name}_total"]) for name in names]
        assert time.monotonic() < deadline, service.output


def _metric(service: Service, name: str) -> float:
    (value,) = _metrics(service, name)
    return value


def _wait_for(service: Service, name: str, more_than: float) -> float:
    deadline = time.monotonic() + WAIT_SECONDS
    while (value := _metric(service, name)) <= more_than:
        assert time.monotonic() < deadline, service.output
        time.sleep(0.05)
    return value


def _computed(answer: Any) -> int:
    usage = answer["usage"]
    return int(usage["input_tokens"] + usage["cache_creation_input_tokens"])


def _explained(service: Service) -> Any:
    newest = service.control("requests", "-n", "1", "--json").json["requests"][0]
    told = service.control("cache", "explain", newest["request_id"], "--json")
    return told.json["explanation"]


def test_a_next_question_computes_its_own_words(service: Service) -> None:
    """A question after a pause computes its words and at most 64 tokens; the saving is shown."""
    before = _metric(service, "ahead_computed_tokens")
    used = _metric(service, "ahead_used_tokens")
    messages = _loop(2, "What is there?")
    answer = _ask(service, "calm", messages)
    ahead = _wait_for(service, "ahead_computed_tokens", before) - before

    messages += [assistant(*answer["content"]), user(_QUESTION)]
    asked = _ask(service, "calm", messages)
    words = len(tokenizer("qwen3").encode(_QUESTION, add_special_tokens=False))
    assert _computed(asked) <= words + 64
    told = _explained(service)
    assert told["cause"] == "computed_ahead"
    assert told["reused_ahead_tokens"] == ahead > 64
    assert _metric(service, "ahead_used_tokens") - used == ahead


def test_a_request_in_the_middle_is_answered_first(service: Service) -> None:
    """Requests of another session interrupt it, and it goes on afterwards where it was."""
    messages = _loop(6, "Look around.")
    name, answer, computed = _interrupted(service, messages)
    _wait_for(service, "ahead_computed_tokens", computed)

    messages += [assistant(*answer["content"]), user(_QUESTION)]
    words = len(tokenizer("qwen3").encode(_QUESTION, add_special_tokens=False))
    assert _computed(_ask(service, name, messages)) <= words + 64


def _interrupted(service: Service, messages: list[Block]) -> tuple[str, Any, float]:
    """A session whose next question was being computed when another request came.

    The last value is how many tokens had been computed ahead by then.
    """
    before, deadline = _metric(service, "ahead_given_up"), time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        name = f"busy-{time.monotonic()}"
        answer = _ask(service, name, messages)
        for _ in range(4):
            time.sleep(0.1)
            with _endless(service):
                given_up, computed = _metrics(service, "ahead_given_up", "ahead_computed_tokens")
            if given_up > before:
                return name, answer, computed
    raise AssertionError(service.output)


@contextmanager
def _endless(service: Service) -> Iterator[None]:
    """A request of another session that runs, so that meanwhile nothing is computed ahead."""
    asked = {"model": "any", "max_tokens": 3000, "stream": True, "messages": [user("Hello.")]}
    with (
        service.http() as client,
        client.stream("POST", "/v1/messages", json=asked, headers=session("other")) as response,
    ):
        assert next(event for event in events(response) if event["type"] == "message_start")
        yield


def test_a_pruned_session_is_not_computed_again(service: Service) -> None:
    """After `cache prune --session`, no cache of the session comes back."""
    before = _metric(service, "ahead_computed_tokens")
    _ask(service, "gone", _loop(2, "Anything else?"))
    _wait_for(service, "ahead_computed_tokens", before)
    assert service.control("cache", "prune", "--session", "gone", "--yes").code == 0
    time.sleep(0.3)
    caches = service.control("cache", "list", "--json").json["caches"]
    assert not [cache for cache in caches if "/gone/" in cache["name"]]


def test_stopping_does_not_wait(service: Service) -> None:
    """A stop in the middle of computing ahead ends the service at once."""
    _ask(service, "last", _loop(6, "Once more."))
    time.sleep(0.2)
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < WAIT_SECONDS / 4
