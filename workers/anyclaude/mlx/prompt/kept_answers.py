"""The tokens of one conversation up to its latest answer, and their form in a file.

Messages are kept as digests, so the only text of a conversation is in its tokens.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
from pydantic import TypeAdapter

from anyclaude.mlx.tokens import TokenArray

DIGEST_BYTES: Final = 16
# The bytes that a message adds to the description of a conversation, rounded up.
_MESSAGE_BYTES: Final = 128


def digest(exact: bytes) -> bytes:
    """16 bytes that stand for a message, or for the tools and instructions of a conversation."""
    return hashlib.blake2b(exact, digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True)
class AnswerEnd:
    """The end of a kept answer."""

    # The number of messages up to it.
    messages: int
    # The number of message ends before it in the template's rendering.
    ends: int
    # The text with which the template opens the answer.
    header: str
    # The number of tokens up to it.
    tokens: int
    # Whether its last token ends it. Otherwise the next turn's first token does.
    is_closed: bool
    # The number of messages that the dialect makes of it.
    parts: int = 1


@dataclass(frozen=True, eq=False)
class KeptAnswers:
    """A conversation as it was computed."""

    # Stands for the tools and instructions.
    start: bytes
    # One digest for each message, the latest answer included.
    items: Sequence[bytes]
    # All tokens up to the end of the latest answer.
    token_ids: TokenArray
    # Increasing token offsets.
    cut_points: tuple[int, ...]
    # At least one.
    answers: tuple[AnswerEnd, ...]

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{digest(self.start + b''.join(self.items)).hex()}.answers"

    @property
    def nbytes(self) -> int:
        """Its size in memory and in a file, rounded up."""
        return self.token_ids.nbytes + _MESSAGE_BYTES * (len(self.items) + 1)

    def to_bytes(self) -> bytes:
        """One line of JSON, then the token ids as 32-bit little-endian integers."""
        head = {
            "start": self.start.hex(),
            "items": b"".join(self.items).hex(),
            "cut_points": self.cut_points,
            "answers": [astuple(answer) for answer in self.answers],
        }
        return json.dumps(head).encode() + b"\n" + self.token_ids.astype("<i4").tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Reads what `to_bytes` wrote.

        Raises:
            ValueError: the content is something else, or contradicts itself.
        """
        line, _, tokens = content.partition(b"\n")
        head = _HEAD.validate_json(line)
        items = bytes.fromhex(head.items)
        kept = cls(
            bytes.fromhex(head.start),
            [items[at : at + DIGEST_BYTES] for at in range(0, len(items), DIGEST_BYTES)],
            np.frombuffer(tokens, "<i4").astype(np.int32),
            head.cut_points,
            tuple(AnswerEnd(*answer) for answer in head.answers),
        )
        kept.check()
        return kept

    def check(self) -> None:
        """Raises ValueError if the parts contradict one another."""
        if not self.answers or len(self.start) != DIGEST_BYTES:
            raise ValueError("the conversation has no answer or no start")
        last = self.answers[-1]
        if (last.messages, last.tokens) != (len(self.items), len(self.token_ids)):
            raise ValueError("the latest answer does not end where the conversation ends")
        offsets = [[answer.tokens for answer in self.answers], [0, *self.cut_points]]
        if any(one >= other for places in offsets for one, other in pairwise(places)):
            raise ValueError("answers or cut points are not in order")


@dataclass(frozen=True)
class _Head:
    start: str
    items: str
    cut_points: tuple[int, ...]
    answers: tuple[tuple[int, int, str, int, bool, int], ...]


_HEAD: Final[TypeAdapter[Any]] = TypeAdapter(_Head)
