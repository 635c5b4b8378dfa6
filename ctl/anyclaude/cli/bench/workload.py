"""Invented conversations of a wanted size, in words whose tokens were counted by the endpoint.

Every system prompt begins with a mark of its own, so that no cache has it from an earlier run.
"""

import secrets
from itertools import count
from typing import Final

from anyclaude.cli.bench.endpoint import Conversation

_WORDS: Final = (
    *("file", "line", "test", "branch", "commit", "search", "replace", "run", "read", "write"),
    *("module", "error", "trace", "build", "request", "answer", "cache", "token", "model"),
    *("prefix", "session", "worker", "folder", "script", "option", "value", "before", "after"),
)
# Until the endpoint has counted, and for good where it counts nothing.
_TOKENS_PER_WORD: Final = 1.3
_PROBE_WORDS: Final = 400
_QUESTION_WORDS: Final = 24


class Workload:
    """Makes conversations; no two share their session or, unless wanted, their system prompt."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(4)
        self._numbers = count(1)
        self._tokens_per_word = _TOKENS_PER_WORD
        self._sessions: list[str] = []

    def start(self, system: str) -> Conversation:
        """The first question of a new session."""
        number = next(self._numbers)
        session = f"bench-{self._mark}-{number}"
        self._sessions.append(session)
        return Conversation(system, (("user", self.question(number)),), session)

    def take_sessions(self) -> list[str]:
        """The sessions that were started since the last call."""
        sessions, self._sessions = self._sessions, []
        return sessions

    def system(self, tokens: int) -> str:
        """New instructions of about that many tokens."""
        return self._instructions(round(tokens / self._tokens_per_word))

    def probe(self) -> Conversation:
        """A short conversation by which `calibrate` counts."""
        return self.start(self._instructions(_PROBE_WORDS))

    def calibrate(self, probe_tokens: int, bare_tokens: int) -> None:
        """Learns the tokens of a word: the prompts with and without the probe's instructions."""
        if probe_tokens > bare_tokens:
            self._tokens_per_word = (probe_tokens - bare_tokens) / _PROBE_WORDS

    def question(self, number: int) -> str:
        return f"Question {number} of {self._mark}: {_words(number, _QUESTION_WORDS)}?"

    def _instructions(self, words: int) -> str:
        number = next(self._numbers)
        return f"{self._mark}-{number}: you are a coding assistant. {_words(number, words)}."


def _words(start: int, number: int) -> str:
    """Words in an order that depends on `start` and does not repeat soon."""
    places = ((start + i) * (start + i + 3) + i // 7 for i in range(number))
    return " ".join(_WORDS[place % len(_WORDS)] for place in places)
