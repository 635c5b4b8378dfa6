"""The date that a template writes, the same in all prompts of one conversation.

A conversation is recognised by its tools, its instructions, and its messages up to its first
answer. A request without an answer begins a conversation, with the date of the clock.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import takewhile
from typing import Final

from anyclaude.mlx.lru import LRUCache
from anyclaude.mlx.prompt.canonical import TemplateMessage
from anyclaude.mlx.prompt.kept_answers import digest
from anyclaude.mlx.prompt.render_cache import exact_bytes
from anyclaude.mlx.prompt.stored_folder import StoredFolder

DATES_FILE: Final = "dates.json"
_MAX_CONVERSATIONS: Final = 1000


@dataclass(frozen=True)
class _Dates:
    """A state of `PinnedDates`, as a file."""

    entries: tuple[tuple[str, date], ...]

    def to_bytes(self) -> bytes:
        return json.dumps({key: day.isoformat() for key, day in self.entries}).encode()


class PinnedDates:
    """The dates of the latest 1000 conversations. Safe to share between threads."""

    def __init__(
        self, stored: StoredFolder | None = None, clock: Callable[[], date] = date.today
    ) -> None:
        """With `stored`, the dates survive a restart."""
        self._stored = stored
        self._clock = clock
        self._dates = LRUCache[str, date](_MAX_CONVERSATIONS)

    def restore(self, content: bytes) -> None:
        """Reads what an earlier process stored.

        Raises:
            ValueError: it is not what this class writes.
        """
        found = json.loads(content)
        dates = _Dates(tuple((key, date.fromisoformat(day)) for key, day in found.items()))
        for key, day in dates.entries:
            self._dates.put(key, day)
        if self._stored is not None:
            self._stored.adopt(DATES_FILE, dates)

    def of(self, start: bytes, messages: Sequence[TemplateMessage]) -> date:
        """The date of a conversation; `start` stands for its tools and instructions."""
        asked = list(takewhile(lambda message: message["role"] != "assistant", messages))
        first = _key(start, asked)
        if len(asked) == len(messages):
            return self._pin(first, self._clock())
        key = _key(start, messages[: len(asked) + 1])
        known = self._dates.get(key) or self._dates.get(first)
        return self._pin(key, known or self._clock())

    def _pin(self, key: str, day: date) -> date:
        if self._dates.get(key) != day:
            self._dates.put(key, day)
            if self._stored is not None:
                self._stored.update({DATES_FILE: _Dates(tuple(self._dates.items()))})
        return day


def _key(start: bytes, messages: Sequence[TemplateMessage]) -> str:
    # Thinking may be cleared later in the conversation.
    said = [{**message, "reasoning_content": ""} for message in messages]
    return digest(start + exact_bytes(said)).hex()
