"""Four conversations with a real service, one of whose processes is killed at random moments.

Two conversations write text, and two call a tool whose schema their calls are held to; one of each
two streams. All is at temperature 0, so every answer has to be the one that the service gives
undisturbed. A kill waits until the requests that ran at the kill before are answered, so that no
request is hit so often that it counts as the cause. A request that comes while no worker runs may
get 529 and is sent again after `retry-after`, as Claude Code does. While no daemon runs its
connection is refused, and it is sent again too.
"""

import enum
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import httpx

from anyclaude.control.v1 import control_pb2
from tests.conformance import grammar, sse
from tests.integration.conversation import body
from tests.integration.mlx_server import free_port
from tests.integration.prompts import LESSON
from tests.integration.service import WAIT_SECONDS, Service, wait_ended
from tests.models import saved
from tests.models.requests import assistant, user

CONVERSATIONS: Final = 4
TURNS: Final = 3
MODE_HEADER: Final = "x-anyclaude-mode"
# When a request whose connection was refused is sent again.
_AGAIN_SECONDS: Final = 0.2
# By then the children of a killed daemon have ended.
_GONE_SECONDS: Final = 10.0
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

    # What answered.
    mode: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    # Of the prompt and of the answer.
    tokens: tuple[int, int]
    # How many of the prompt were in a cache.
    read_tokens: int = field(default=0, compare=False)


class Harm(enum.Enum):
    """What a kill may do to connections."""

    NONE = enum.auto()
    # They may end, but none is refused.
    CUT = enum.auto()
    REFUSED = enum.auto()


Connect = Callable[[], httpx.Client]


class Conversation:
    """Asks its questions again and again."""

    def __init__(self, number: int, elsewhere: Answer | None = None) -> None:
        """
        Args:
            elsewhere: the answer of another mode, which is right too.
        """
        self.number = number
        self._streams = number % 2 == 0
        self._calls = number % CONVERSATIONS >= CONVERSATIONS // 2
        self._elsewhere = elsewhere
        self._expected: list[Answer] = []
        # Counts of requests.
        self.begun = self.answered = self.cut = self.sent_again = 0
        # Of the first prompts that each new daemon answers, and how much of them it had on disk.
        self.restarted_prompt_tokens = self.restarted_read_tokens = 0
        self.failures: list[str] = []

    def learn(self, connect: Connect) -> None:
        """Asks every question of an undisturbed service."""
        for turn in range(TURNS):
            self._expected.append(self._ask(connect, turn, "undisturbed"))

    def run(self, connect: Connect, stop: threading.Event, harm: Harm) -> None:
        """Asks until `stop` is set."""
        for cycle in itertools.count():
            if stop.is_set():
                return
            self.ask_all(connect, f"cycle-{cycle}", harm)

    def ask_all(self, connect: Connect, session: str, harm: Harm) -> None:
        """Asks every question once, and counts answers that differ as failures."""
        for turn in range(TURNS):
            self._check(connect, turn, session, harm)

    def _check(self, connect: Connect, turn: int, session: str, harm: Harm) -> None:
        self.begun += 1
        try:
            answer = self._answered(connect, turn, session, harm)
            if answer not in (self._expected[turn], self._elsewhere):
                self._fail(turn, f"{answer}\ninstead of {self._expected[turn]}")
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            self.cut += 1
            if harm is Harm.NONE:
                self._fail(turn, repr(error))
        except (httpx.HTTPError, AssertionError, ValueError) as error:
            self._fail(turn, repr(error))
        self.answered += 1

    def _fail(self, turn: int, why: str) -> None:
        self.failures.append(f"conversation {self.number}, turn {turn}: {why}")

    def _answered(self, connect: Connect, turn: int, session: str, harm: Harm) -> Answer:
        is_restarted = False
        while True:
            try:
                answer = self._ask(connect, turn, session)
                if is_restarted:
                    self.restarted_prompt_tokens += answer.tokens[0]
                    self.restarted_read_tokens += answer.read_tokens
                return answer
            except _NotReady as refused:
                self.sent_again += 1
                time.sleep(refused.retry_after_seconds)
            except httpx.ConnectError:
                if harm is not Harm.REFUSED:
                    raise
                is_restarted = True
                self.sent_again += 1
                time.sleep(_AGAIN_SECONDS)

    def _ask(self, connect: Connect, turn: int, session: str) -> Answer:
        headers = {"x-claude-code-session-id": f"{session}-{self.number}"}
        request = self.request(turn)
        with connect() as http:
            if not self._streams:
                response = http.post("/v1/messages", json=request, headers=headers)
                _check_status(response)
                whole, mode = response.json(), response.headers[MODE_HEADER]
                return _answer(mode, whole["content"], whole["stop_reason"], whole["usage"])
            with http.stream("POST", "/v1/messages", json=request, headers=headers) as response:
                _check_status(response)
                frames, mode = sse.parse(response.iter_bytes()), response.headers[MODE_HEADER]
        message = grammar.check([frame.event for frame in frames])
        assert message.error is None, message.error
        return _answer(mode, message.content, message.stop_reason, message.usage)

    def request(self, turn: int) -> dict[str, Any]:
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
    mode: str, content: list[dict[str, Any]], stop_reason: str | None, usage: dict[str, Any]
) -> Answer:
    prompt = sum(count for name, count in usage.items() if name.endswith("input_tokens"))
    # Ids and signatures are random.
    kept = ("type", "text", "name", "input")
    blocks = [{name: block[name] for name in kept if name in block} for block in content]
    tokens = prompt, usage["output_tokens"]
    return Answer(mode, blocks, stop_reason, tokens, usage.get("cache_read_input_tokens") or 0)


def _result(call_id: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": "done"}


@dataclass
class Result:
    """What the kills of one process did."""

    kills: int = 0
    # Requests that ran at the kills, and how many connections ended.
    in_flight: int = 0
    cut: int = 0
    # How often requests that came while nothing ran were sent again.
    sent_again: int = 0
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    # From each kill until the next process was ready.
    recovery_seconds: list[float] = field(default_factory=list)
    # Of the first prompts that each new daemon answered, and how many of them were on disk.
    restarted_prompt_tokens: int = 0
    restarted_read_tokens: int = 0

    def add(self, talk: Conversation) -> None:
        """Counts what one conversation saw."""
        self.cut += talk.cut
        self.sent_again += talk.sent_again
        self.answers += talk.answered
        self.failures += talk.failures
        self.restarted_prompt_tokens += talk.restarted_prompt_tokens
        self.restarted_read_tokens += talk.restarted_read_tokens

    @property
    def reused(self) -> float:
        """The part of these prompts that was read from disk."""
        return self.restarted_read_tokens / max(1, self.restarted_prompt_tokens)


@contextmanager
def disturbed_service(folder: Path, **environ: str) -> Iterator[Service]:
    """A ready service that never gives a child up."""
    model = saved.save(folder / "tiny", template="qwen3", endless=True)
    variables: dict[str, Any] = {
        "ANYCLAUDE__SUPERVISOR__CRASH_LIMIT": "1000000",
        "ANYCLAUDE__SUPERVISOR__BACKOFF_MAX_SECONDS": "0.5",
        **environ,
    }
    with Service(model=model, **variables) as service:
        yield service.ready()


def disturb(folder: Path, process: str, kills: int, seed: int) -> Result:
    """Kills one process so many times under four conversations.

    Args:
        folder: an empty one with a short path.
        process: "daemon" or the name of a worker.
        kills: how many.
        seed: of the moments.
    """
    if process == "daemon":
        with _Daemon(folder) as daemon:
            return _disturb(daemon.http, daemon.kill, Harm.REFUSED, kills, seed)
    harm = Harm.CUT if process == "frontend" else Harm.NONE
    with disturbed_service(folder) as service:
        return _disturb(service.http, partial(_kill, service, process), harm, kills, seed)


def _disturb(
    connect: Connect, kill: Callable[[Result], None], harm: Harm, kills: int, seed: int
) -> Result:
    chance = random.Random(seed)
    talks = [Conversation(number) for number in range(CONVERSATIONS)]
    for talk in talks:
        talk.learn(connect)
    stop, result = threading.Event(), Result()
    threads = [threading.Thread(target=talk.run, args=(connect, stop, harm)) for talk in talks]
    for thread in threads:
        thread.start()
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(0, SPREAD_SECONDS))
            _kill_under(talks, kill, result)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for talk in talks:
        result.add(talk)
    return result


def _kill_under(talks: list[Conversation], kill: Callable[[Result], None], result: Result) -> None:
    running = [(talk, talk.begun) for talk in talks if talk.answered < talk.begun]
    killed = time.monotonic()
    kill(result)
    result.recovery_seconds.append(time.monotonic() - killed)
    result.kills += 1
    result.in_flight += len(running)
    deadline = killed + WAIT_SECONDS
    while any(talk.answered < begun for talk, begun in running):
        assert time.monotonic() < deadline, "a request was not answered"
        time.sleep(0.01)


def _kill(service: Service, process: str, _: Result) -> None:
    """Returns once the next process is ready."""
    worker = service.worker(process)
    os.kill(worker.pid, signal.SIGKILL)
    ready = control_pb2.WORKER_STATE_READY
    service.wait_worker(ready, process, worker.generation + 1)


class _Daemon:
    """A service whose next daemon is started as soon as it dies, on the same port and home."""

    def __init__(self, folder: Path) -> None:
        self._model = saved.save(folder / "tiny", template="qwen3", endless=True)
        self._home = folder / "h"
        self._home.mkdir()
        self._port = str(free_port())
        self._service = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._service.__exit__()

    def http(self) -> httpx.Client:
        url = f"http://127.0.0.1:{self._port}"
        return httpx.Client(base_url=url, timeout=WAIT_SECONDS, trust_env=False)

    def kill(self, result: Result) -> None:
        """Returns once the next daemon is ready; a child that outlives its daemon is a failure."""
        before = self._service
        children = before.children()
        before.process.kill()
        before.process.wait()
        self._service = self._start()
        left = wait_ended(children, _GONE_SECONDS)
        result.failures += [f"process {child.pid} outlived its daemon" for child in left]
        before.__exit__()

    def _start(self) -> Service:
        return Service(model=self._model, home=self._home, ANYCLAUDE_PORT=self._port).ready()
