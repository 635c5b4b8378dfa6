"""Conversations in the form that a template takes, of which only what is new is made.

Messages that come again are the same objects (`canonical.TurnMemory`), and each is shaped by what
it is and what stands before it: of a conversation that has grown, the beginning stays.
"""

import operator
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from anyclaude.mlx.prompt.canonical import Conversation, TemplateMessage
from anyclaude.mlx.prompt.compare import exact_bytes
from anyclaude.mlx.prompt.continuation import Shaped
from anyclaude.mlx.prompt.dialect import Dialect


@dataclass(frozen=True, eq=False)
class _Made:
    leading: tuple[str, ...]
    given: Sequence[TemplateMessage]
    # How many messages there were before each of the given ones, and after the last.
    ends: list[int]
    shaped: Shaped
    nbytes: int

    def stood(self, count: int) -> bool:
        """Whether what the first `count` became is still as it was then."""
        return count == len(self.given) or self.ends[count + 1] > self.ends[count]


class Shaping:
    """Shapes for one dialect; safe between threads."""

    def __init__(self, dialect: Dialect, limit_bytes: int) -> None:
        """
        Args:
            dialect: what the template takes.
            limit_bytes: for what is kept of earlier conversations.
        """
        self._dialect = dialect
        self._limit_bytes = limit_bytes
        # The latest made last.
        self._kept: list[_Made] = []
        self._lock = threading.Lock()

    def shaped(self, conversation: Conversation) -> Shaped:
        if not self._dialect.parallel_calls:
            # A call's place depends on the results behind it.
            return Shaped.of(self._dialect.shape(conversation))
        before, known = self._longest(conversation)
        messages, exact, ends = self._begun(conversation, before, known)
        unchanged = len(messages)
        for message in conversation.messages[len(ends) :]:
            ends.append(len(messages))
            self._dialect.add(messages, message)
            # The last one may have been joined with it.
            unchanged = min(unchanged, ends[-1] - (len(messages) == ends[-1]))
        ends.append(len(messages))
        del exact[unchanged:]
        exact += [exact_bytes(message) for message in messages[unchanged:]]
        shaped = Shaped(messages, exact)
        self._keep(conversation, ends, shaped)
        return shaped

    def _begun(
        self, conversation: Conversation, before: _Made | None, known: int
    ) -> tuple[list[TemplateMessage], list[bytes], list[int]]:
        """What was made of the first messages, up to one that began a new one."""
        while before is not None and known:
            if before.stood(known):
                end, made = before.ends[known], before.shaped
                return made.messages[:end], made.exact[:end], before.ends[:known]
            known -= 1
        messages = self._dialect.leading(conversation.leading)
        return messages, [exact_bytes(message) for message in messages], []

    def _longest(self, conversation: Conversation) -> tuple[_Made | None, int]:
        """The kept conversation that begins with most of these messages, and how many."""
        with self._lock:
            kept = [made for made in self._kept if made.leading == conversation.leading]
        counted = ((_common(made.given, conversation.messages), made) for made in kept)
        known, best = max(counted, key=operator.itemgetter(0), default=(0, None))
        return best, known

    def _keep(self, conversation: Conversation, ends: list[int], shaped: Shaped) -> None:
        nbytes = 2 * sum(map(len, shaped.exact))
        given = conversation.messages
        made = _Made(conversation.leading, given, ends, shaped, nbytes)
        with self._lock:
            # In place of those that it goes on from.
            kept = [one for one in self._kept if _common(one.given, given) < len(one.given)]
            kept.append(made)
            while kept and sum(one.nbytes for one in kept) > self._limit_bytes:
                kept.pop(0)
            self._kept = kept


def _common(first: Sequence[TemplateMessage], second: Sequence[TemplateMessage]) -> int:
    """How many of the first are the same objects."""
    return sum(takewhile(bool, map(operator.is_, first, second)))
