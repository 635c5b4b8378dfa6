"""What every server is asked in one round, in the shape of Claude Code's work.

A main session with long instructions takes turns; another session and two subagents come beside it;
the server is killed and started again; then several streams decode at once, and one decodes while
another prompt is computed. Each round has new instructions, so that its first request is cold.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from anyclaude.cli.bench.endpoint import Answer, Conversation, Endpoint
from anyclaude.cli.bench.workload import Workload
from benchmarks.rivals.contestants import STREAMS, Contestant, settle

STREAM_COUNTS: Final = (1, 2, 4, STREAMS)
# More than one: a request for a single token is taken for a check of the connection, whose prompt
# anyclaude does not keep.
_ANSWER_TOKENS: Final = 8
_STREAM_PROMPT_TOKENS: Final = 480
# By then a quiet machine decodes the answer that the prefill shall disturb.
_BEFORE_PREFILL_SECONDS: Final = 0.3


@dataclass(frozen=True)
class Setting:
    """A model and the size of its prompts; the slower the model, the fewer tokens are decoded."""

    name: str
    shape: dict[str, Any]
    tokens: int
    rounds: int
    decode_tokens: int
    mixed_tokens: int


@dataclass(frozen=True)
class Sample:
    """One measurement, and the processor time that the server's processes spent on it."""

    value: float
    cpu_seconds: float


@dataclass
class Results:
    """The samples of every row and server, and the reasons of each server's failures."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[str, list[str]] = field(default_factory=dict)

    def add(self, row: str, server: str, sample: Sample) -> None:
        self.samples[row, server].append(sample)


class Round:
    """One round of one server."""

    def __init__(
        self, contestant: Contestant, setting: Setting, workload: Workload, results: Results
    ) -> None:
        self._contestant = contestant
        self._setting = setting
        self._workload = workload
        self._results = results

    def run(self) -> None:
        with self._contestant.endpoint() as endpoint:
            main = self._sessions(endpoint)
            main = self._subagents(endpoint, main)
        settle()
        self._contestant.kill()
        began = perf_counter()
        self._contestant.start()
        self._add("start until it answers", perf_counter() - began, 0.0)
        with self._contestant.endpoint() as endpoint:
            main = self._turn(endpoint, "next turn after kill and start", main)
            if self._contestant.round_trip():
                self._turn(endpoint, "next turn after a mode round trip", main)
            self._memory(endpoint)
            for count in STREAM_COUNTS:
                self._decode(endpoint, count)
            self._mixed(endpoint)

    def _sessions(self, endpoint: Endpoint) -> Conversation:
        main = self._new(self._setting.tokens)
        answer = self._first(endpoint, "cold", main)
        self._first(endpoint, "same request again", main)
        main = self._turn(endpoint, "next turn", self._next(main, answer))
        self._first(endpoint, "another session", self._workload.start(main.system))
        return main

    def _subagents(self, endpoint: Endpoint, main: Conversation) -> Conversation:
        """Two subagents compute their prompts while the main session goes on."""
        others = [self._new(self._setting.tokens // 2) for _ in range(2)]
        with ThreadPoolExecutor(len(others)) as pool:
            running = [pool.submit(endpoint.ask, other, _ANSWER_TOKENS) for other in others]
            main = self._turn(endpoint, "next turn beside two subagents", main)
            for one in running:
                one.result()
        return self._turn(endpoint, "next turn after the subagents", main)

    def _memory(self, endpoint: Endpoint) -> None:
        """Eight sessions of two turns with the same instructions."""
        before = self._contestant.resident_bytes()
        system = self._workload.system(self._setting.tokens)
        for _ in range(STREAMS):
            session = self._workload.start(system)
            answer = endpoint.ask(session, _ANSWER_TOKENS)
            endpoint.ask(self._next(session, answer), _ANSWER_TOKENS)
        grown = max(0, self._contestant.resident_bytes() - before)
        self._add("memory of eight sessions", grown, 0.0)

    def _decode(self, endpoint: Endpoint, count: int) -> None:
        tokens = self._setting.decode_tokens
        sessions = [self._new(_STREAM_PROMPT_TOKENS) for _ in range(count)]
        for session in sessions:
            endpoint.ask(session, _ANSWER_TOKENS)
        with self._cpu() as spent, ThreadPoolExecutor(count) as pool:
            began = perf_counter()
            answers = list(pool.map(lambda one: endpoint.ask(one, tokens), sessions))
            seconds = perf_counter() - began
        total = sum(_tokens(answer, tokens) for answer in answers)
        plural = "stream" if count == 1 else "streams"
        self._add(f"decode, {count} {plural}", total / seconds, spent() / total)

    def _mixed(self, endpoint: Endpoint) -> None:
        """How fast an answer goes on while another session's prompt is computed."""
        session, other = self._new(_STREAM_PROMPT_TOKENS), self._new(self._setting.tokens)
        endpoint.ask(session, _ANSWER_TOKENS)
        with ThreadPoolExecutor(1) as pool:
            began = perf_counter()
            decoding = pool.submit(endpoint.ask, session, self._setting.mixed_tokens)
            settle(_BEFORE_PREFILL_SECONDS)
            asked = perf_counter() - began
            first = asked + endpoint.ask(other, 1).first_seconds
            answer = decoding.result()
        per_piece = _tokens(answer, self._setting.mixed_tokens) / max(1, len(answer.piece_seconds))
        start, end = max(asked, answer.first_seconds), min(first, answer.whole_seconds)
        pieces = sum(start < at <= end for at in answer.piece_seconds)
        # On a slow machine they may have missed each other.
        if start < end:
            self._add("decode beside a prefill", pieces * per_piece / (end - start), 0.0)

    def _new(self, tokens: int) -> Conversation:
        return self._workload.start(self._workload.system(tokens))

    def _next(self, conversation: Conversation, answer: Answer) -> Conversation:
        number = len(conversation.messages)
        return conversation.continued(answer.text, self._workload.question(number))

    def _turn(self, endpoint: Endpoint, row: str, conversation: Conversation) -> Conversation:
        """Measures the conversation's newest question; returns it with the one after."""
        return self._next(conversation, self._first(endpoint, row, conversation))

    def _first(self, endpoint: Endpoint, row: str, conversation: Conversation) -> Answer:
        with self._cpu() as spent:
            answer = endpoint.ask(conversation, _ANSWER_TOKENS)
        self._add(row, answer.first_seconds, spent())
        return answer

    def _add(self, row: str, value: float, cpu_seconds: float) -> None:
        self._results.add(row, self._contestant.name, Sample(value, cpu_seconds))

    @contextmanager
    def _cpu(self) -> Iterator[Callable[[], float]]:
        """Yields a function that says, after the block, how much processor time it took."""
        before = self._contestant.cpu_seconds()
        spent: list[float] = []
        yield lambda: spent[0]
        spent.append(self._contestant.cpu_seconds() - before)


def _tokens(answer: Answer, wanted: int) -> int:
    """The tokens of an endless answer; some servers do not count them."""
    return answer.output_tokens or wanted
