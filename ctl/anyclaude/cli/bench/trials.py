"""Asks what the benchmark measures, always through a client's eyes: the time to the first token.

1. Ten queries in one session: the first is new to the cache, the others follow up. Beside it: the
   same instructions in another session, and a question without instructions.
2. The same sessions go on to twenty queries: how their time and their caches grow.
3. Prompts of several sizes, each new and with a follow-up.
4. Many queries in sessions of twenty: how the memory of the service grows.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from anyclaude.cli.bench.endpoint import Answer, Conversation, Endpoint
from anyclaude.cli.bench.figures import Row, Unit
from anyclaude.cli.bench.workload import Workload

SESSION_QUERIES: Final = 10
GROWTH_QUERIES: Final = 20
GROWTH_SHOWN: Final = (1, 2, 10, 20)
_ANSWER_TOKENS: Final = 8
# For questions, answers and the words of the chat template.
_RESERVED_TOKENS: Final = 500
_MEMORY_PARTS: Final = 4


@dataclass(frozen=True)
class Sizes:
    """How much is asked; the default takes a small model a minute or less."""

    tokens: int = 2_000
    runs: int = 5
    context_tokens: tuple[int, ...] = (1_000, 4_000)
    memory_queries: int = 40

    @property
    def requests(self) -> int:
        session = self.runs * (GROWTH_QUERIES + 2)
        return 2 + session + 2 * self.runs * len(self.context_tokens) + self.memory_queries

    def within(self, window_tokens: int) -> "tuple[Sizes, tuple[int, ...]]":
        """The sizes that fit into the window, and the contexts that do not; 0: not known."""
        most = (window_tokens or sys.maxsize) - _RESERVED_TOKENS
        fitting = tuple(size for size in self.context_tokens if size <= most)
        left_out = tuple(size for size in self.context_tokens if size > most)
        return replace(self, context_tokens=fitting), left_out


# Claude Code's tools and instructions have about 18,490 tokens.
FULL: Final = Sizes(18_490, 5, (8_000, 32_000, 128_000), 200)


class Insight(Protocol):
    """What only the running service knows of itself."""

    def cache_bytes(self) -> int:
        """Bytes of all caches in memory."""

    def remove(self, sessions: Sequence[str]) -> None:
        """Removes the caches of these sessions."""

    def memory_bytes(self) -> dict[str, int]:
        """The service's memory, by the name of what was counted."""


class Trials:
    """Runs the tests one after another and collects their samples."""

    def __init__(
        self,
        endpoint: Endpoint,
        workload: Workload,
        sizes: Sizes,
        insight: Insight | None,
        advance: Callable[[str], None],
    ) -> None:
        """`advance` is called before each request, with the name of its test."""
        self._endpoint = endpoint
        self._workload = workload
        self._sizes = sizes
        self._insight = insight
        self._advance = advance
        self._samples: dict[tuple[str, str, Unit], list[float]] = defaultdict(list)
        self._last: dict[tuple[str, str, Unit], Answer] = {}

    def run(self) -> tuple[Row, ...]:
        try:
            self._calibrate()
            for _ in range(self._sizes.runs):
                self._session()
            for tokens in self._sizes.context_tokens:
                for _ in range(self._sizes.runs):
                    self._context(tokens)
            if self._sizes.memory_queries:
                self._memory(self._workload.system(self._sizes.tokens))
        finally:
            self._remove_caches()
        return tuple(self._rows())

    def _calibrate(self) -> None:
        probe = self._ask("calibration", self._workload.probe())
        bare = self._ask("calibration", self._workload.start(""))
        self._workload.calibrate(probe.prompt_tokens, bare.prompt_tokens)

    def _session(self) -> None:
        test = "1 session"
        self._add(test, "no instructions", self._ask(test, self._workload.start("")))
        self._remove_caches()
        conversation = self._workload.start(self._workload.system(self._sizes.tokens))
        bytes_before = self._insight.cache_bytes() if self._insight else 0
        for number in range(1, GROWTH_QUERIES + 1):
            answer = self._ask(test, conversation)
            self._add_query(number, answer, bytes_before)
            question = self._workload.question(number + 1)
            conversation = conversation.continued(answer.text, question)
        again = self._workload.start(conversation.system)
        self._add(test, "another session", self._ask(test, again))

    def _add_query(self, number: int, answer: Answer, bytes_before: int) -> None:
        if number == 1:
            self._add("1 session", "query 1", answer)
        elif number <= SESSION_QUERIES:
            self._add("1 session", f"queries 2 to {SESSION_QUERIES}", answer)
        if number in GROWTH_SHOWN:
            self._add("2 growth", f"query {number}", answer)
            if self._insight:
                grown = max(0, self._insight.cache_bytes() - bytes_before)
                self._add_bytes("2 growth", f"caches after query {number}", grown)

    def _context(self, tokens: int) -> None:
        self._remove_caches()
        test = "3 context"
        new = self._workload.start(self._workload.system(tokens))
        first = self._ask(test, new)
        self._add(test, f"{tokens:,} tokens, new", first)
        follow_up = new.continued(first.text, self._workload.question(2))
        self._add(test, f"{tokens:,} tokens, follow-up", self._ask(test, follow_up))

    def _memory(self, system: str) -> None:
        self._remove_caches()
        test, whole = "4 memory", self._sizes.memory_queries
        self._note_memory(0)
        shown = {whole * part // _MEMORY_PARTS for part in range(1, _MEMORY_PARTS + 1)}
        conversation = self._workload.start(system)
        for number in range(1, whole + 1):
            answer = self._ask(test, conversation)
            self._add(test, "query", answer)
            if number % GROWTH_QUERIES:
                question = self._workload.question(number + 1)
                conversation = conversation.continued(answer.text, question)
            else:
                conversation = self._workload.start(system)
            if number in shown:
                self._note_memory(number)

    def _note_memory(self, queries: int) -> None:
        for name, nbytes in self._insight.memory_bytes().items() if self._insight else ():
            self._add_bytes("4 memory", f"{name} after {queries} queries", nbytes)

    def _remove_caches(self) -> None:
        """Makes the service forget what was asked so far, so that the user's own caches stay."""
        sessions = self._workload.take_sessions()
        if self._insight:
            self._insight.remove(sessions)

    def _ask(self, test: str, conversation: Conversation) -> Answer:
        self._advance(test)
        return self._endpoint.ask(conversation, _ANSWER_TOKENS)

    def _add(self, test: str, name: str, answer: Answer) -> None:
        key = (test, name, Unit.SECONDS)
        self._samples[key].append(answer.first_seconds)
        self._last[key] = answer

    def _add_bytes(self, test: str, name: str, nbytes: int) -> None:
        self._samples[test, name, Unit.BYTES].append(nbytes)

    def _rows(self) -> list[Row]:
        """Times before bytes in each test."""
        rows = []
        for key, samples in self._samples.items():
            last = self._last.get(key)
            counts = (last.prompt_tokens, last.reused_tokens) if last else (0, 0)
            rows.append(Row(*key, tuple(samples), *counts))
        return sorted(rows, key=lambda row: (row.test, row.unit is Unit.BYTES))
