"""What was rendered lately, so that a conversation that goes on is found again."""

import sys
import threading
from dataclasses import dataclass
from typing import Final

from anyclaude.workers.mlx.prompt.continuation import Rendering
from anyclaude.workers.mlx.prompt.marks import Cut
from anyclaude.workers.mlx.prompt.pieces import Encoded

_LIMIT_BYTES: Final = 64 * 1024 * 1024
# Main conversations and their subagents; beyond, looking through them would cost.
_LIMIT_COUNT: Final = 32
_PIECE_BYTES: Final = 200


@dataclass(frozen=True, eq=False)
class Rendered:
    """A prompt as it was made."""

    # What a rendering depends on beside the messages; compared by identity.
    start: object
    rendering: Rendering
    encoded: Encoded
    cuts: list[Cut]

    @property
    def nbytes(self) -> int:
        """About what it holds: the messages, the text, its pieces and the token ids."""
        pieces = _PIECE_BYTES * len(self.encoded.pieces)
        return 3 * sys.getsizeof(self.encoded.text) + self.encoded.token_ids.nbytes + pieces


class RenderedMemory:
    """The latest prompts, bounded in number and bytes; safe between threads."""

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        # The latest used last.
        self._kept: list[Rendered] = []
        self._lock = threading.Lock()

    def find(self, start: object, messages: list[bytes]) -> Rendered | None:
        """The prompt that has most messages in common with these, and at least one.

        Args:
            messages: as `Shaped.exact`.
        """
        with self._lock:
            kept = [one for one in reversed(self._kept) if one.start is start]
        counted = [(_common(one.rendering.messages, messages), one) for one in kept]
        common, best = max(counted, key=lambda pair: pair[0], default=(0, None))
        return best if common else None

    def add(self, rendered: Rendered) -> None:
        """Keeps a prompt in place of the one that it goes on from."""
        with self._lock:
            kept = [one for one in self._kept if not _goes_on(rendered, one)]
            kept = [*kept, rendered][-_LIMIT_COUNT:]
            while kept and sum(one.nbytes for one in kept) > self._limit_bytes:
                kept.pop(0)
            self._kept = kept


def _goes_on(rendered: Rendered, before: Rendered) -> bool:
    messages = before.rendering.messages
    return (
        rendered.start is before.start and rendered.rendering.messages[: len(messages)] == messages
    )


def _common(first: list[bytes], second: list[bytes]) -> int:
    if second[: len(first)] == first:
        return len(first)
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))
