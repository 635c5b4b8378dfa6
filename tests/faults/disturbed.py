"""Four conversations with a real service, one of whose processes is killed at random moments.

Two conversations write text, and two call a tool whose schema their calls are held to; one of each
two streams. All is at temperature 0, so every answer has to be the one that the service gives
undisturbed. A kill waits until the requests that ran at the kill before are answered, so that no
request is hit so often that it counts as the cause. A request that comes while no worker runs may
get 529 and is sent again after `retry-after`, as Claude Code does.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from anyclaude.control.v1 import control_pb2
from tests.conformance import grammar, sse
from tests.integration.conversation import body
from tests.integration.prompts import LESSON
from tests.integration.service import WAIT_SECONDS, Service
from tests.models import saved
from tests.models.requests import assistant, user

CONVERSATIONS: Final = 4
TURNS: Final = 3
# A kill comes at most so long after the worker is ready: about as long as an answer takes.
SPREAD_SECONDS: Final = 3.0
_TOOL: Final = {
    "name": "Edit",
    "input_schema": {
        "type": "object",
        "properties": {
            "path": {"type": "string", "maxLength": 60},
            "lines": {"type": "array", "items": {"type": "integer"}, "maxItems": 12},
            "mode": {"enum": ["replace", "insert", "delete"]},
            "dry": {"type": "boolean"},
        },
        "required": ["path", "lines", "mode", "dry"],
    },
}
_CALL: Final = {
    "tools": [_TOOL],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "max_tokens": 300,
}


@dataclass(frozen=True)
class Answer:
    """What must not differ, whatever was killed."""

    content: list[dict[str, Any]]
    stop_reason: str | None
    tokens: tuple[int, int]


class Conversation:
    """Asks its questions again and again."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._streams = number % 2 == 0
        self._calls = number >= CONVERSATIONS // 2
        self._expected: list[Answer] = []
        # Counts of requests.
        self.begun = self.answered = self.cut = self.refused = 0
        self.failures: list[str] = []

    def learn(self, service: Service) -> None:
        """Asks every question of an undisturbed service."""
        for turn in range(TURNS):
            self._expected.append(self._ask(service, turn, "undisturbed"))

    def run(self, service: Service, stop: threading.Event, *, may_be_cut: bool) -> None:
        """Asks until `stop` is set.

        Args:
            may_be_cut: whether connections may end; refused ones always count as failures.
        """
        for count in range(1_000_000):
            turn, cycle = count % TURNS, count // TURNS
            if stop.is_set() and turn == 0:
                return
            self._check(service, turn, f"cycle-{cycle}", may_be_cut=may_be_cut)

    def _check(self, service: Service, turn: int, session: str, *, may_be_cut: bool) -> None:
        self.begun += 1
        try:
            answer = self._answered(service, turn, session)
            if answer != self._expected[turn]:
                self._fail(turn, f"{answer}\ninstead of {self._expected[turn]}")
        except (httpx.RemoteProtocolError, httpx.ReadError) as error:
            self.cut += 1
            if not may_be_cut:
                self._fail(turn, repr(error))
        except (httpx.HTTPError, AssertionError, ValueError) as error:
            self._fail(turn, repr(error))
        self.answered += 1

    def _fail(self, turn: int, why: str) -> None:
        self.failures.append(f"conversation {self.number}, turn {turn}: {why}")

    def _answered(self, service: Service, turn: int, session: str) -> Answer:
        while True:
            try:
                return self._ask(service, turn, session)
            except _NotReady as refused:
                self.refused += 1
                time.sleep(refused.retry_after_seconds)

    def _ask(self, service: Service, turn: int, session: str) -> Answer:
        headers = {"x-claude-code-session-id": f"{session}-{self.number}"}
        request = self._request(turn)
        with service.http() as http:
            if not self._streams:
                response = http.post("/v1/messages", json=request, headers=headers)
                _check_status(response)
                whole = response.json()
                return _answer(whole["content"], whole["stop_reason"], whole["usage"])
            with http.stream("POST", "/v1/messages", json=request, headers=headers) as response:
                _check_status(response)
                frames = sse.parse(response.iter_bytes())
        message = grammar.check([frame.event for frame in frames])
        assert message.error is None, message.error
        return _answer(message.content, message.stop_reason, message.usage)

    def _request(self, turn: int) -> dict[str, Any]:
        messages = [user(f"Question 0 of conversation {self.number}?")]
        for number, answer in enumerate(self._expected[:turn]):
            call_id = f"toolu_{number}"
            calls = [block for block in answer.content if block["type"] == "tool_use"]
            content = [b | {"id": call_id} if b in calls else b for b in answer.content]
            results = [_result(call_id) for _ in calls]
            question = {"type": "text", "text": f"Question {number + 1}?"}
            messages += [assistant(*content), user(*results, question)]
        extra: dict[str, Any] = _CALL if self._calls else {"max_tokens": 200}
        system = f"Conversation {self.number}: " + LESSON * 10
        return body(*messages, system=system, stream=self._streams, **extra)


class _NotReady(Exception):
    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


def _check_status(response: httpx.Response) -> None:
    if response.status_code == 529:
        raise _NotReady(float(response.headers["retry-after"]))
    if response.status_code != 200:
        raise AssertionError(response.read())


def _answer(
    content: list[dict[str, Any]], stop_reason: str | None, usage: dict[str, Any]
) -> Answer:
    prompt = sum(count for name, count in usage.items() if name.endswith("input_tokens"))
    # Ids and signatures are random.
    kept = ("type", "text", "name", "input")
    blocks = [{name: block[name] for name in kept if name in block} for block in content]
    return Answer(blocks, stop_reason, (prompt, usage["output_tokens"]))


def _result(call_id: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": "done"}


@dataclass
class Result:
    """What the kills of one process did."""

    kills: int = 0
    # Requests that ran at the kills, and how many connections ended.
    in_flight: int = 0
    cut: int = 0
    # Requests that came while no worker ran and were sent again.
    refused: int = 0
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    # From each kill until the next process was ready.
    recovery_seconds: list[float] = field(default_factory=list)


@contextmanager
def disturbed_service(folder: Path) -> Iterator[Service]:
    """A ready service that never gives a child up."""
    model = saved.save(folder / "tiny", template="qwen3", endless=True)
    limits = {
        "ANYCLAUDE__SUPERVISOR__CRASH_LIMIT": "1000000",
        "ANYCLAUDE__SUPERVISOR__BACKOFF_MAX_SECONDS": "0.5",
    }
    with Service(model=model, **limits) as service:
        yield service.ready()


def disturb(service: Service, process: str, kills: int, seed: int) -> Result:
    """Kills one process so many times under four conversations."""
    chance = random.Random(seed)
    talks = [Conversation(number) for number in range(CONVERSATIONS)]
    for talk in talks:
        talk.learn(service)
    stop, result = threading.Event(), Result()
    may_be_cut = process == "frontend"
    threads = [
        threading.Thread(target=talk.run, args=(service, stop), kwargs={"may_be_cut": may_be_cut})
        for talk in talks
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(0, SPREAD_SECONDS))
            _kill(service, process, talks, result)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    result.cut = sum(talk.cut for talk in talks)
    result.refused = sum(talk.refused for talk in talks)
    result.answers = sum(talk.answered for talk in talks)
    result.failures = [failure for talk in talks for failure in talk.failures]
    return result


def _kill(service: Service, process: str, talks: list[Conversation], result: Result) -> None:
    worker = service.worker(process)
    running = [(talk, talk.begun) for talk in talks if talk.answered < talk.begun]
    os.kill(worker.pid, signal.SIGKILL)
    killed = time.monotonic()
    result.kills += 1
    result.in_flight += len(running)
    ready = control_pb2.WORKER_STATE_READY
    service.wait_worker(ready, process, worker.generation + 1)
    result.recovery_seconds.append(time.monotonic() - killed)
    deadline = killed + WAIT_SECONDS
    while any(talk.answered < begun for talk, begun in running):
        assert time.monotonic() < deadline, "a request was not answered"
        time.sleep(0.01)
