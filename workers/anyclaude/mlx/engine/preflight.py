"""Whether the machine has the memory that a request needs, asked before it starts.

The caches' own limit says what they may take; this says what there is. Running requests have been
promised theirs, so two prefills never count on the same bytes.
"""

from anyclaude.messages.errors import ApiError
from anyclaude.mlx.machine import Machine
from anyclaude.mlx.memory import pool_bytes


class Preflight:
    def __init__(self, machine: Machine, reserve_bytes: int) -> None:
        """
        Args:
            machine: this one.
            reserve_bytes: left to everything else, a prefill's intermediate results included.
        """
        self._machine = machine
        self._reserve_bytes = reserve_bytes
        # Requests that did not fit, since the start.
        self.refused = 0

    def missing_bytes(self, needed_bytes: int) -> int:
        """How much more would have to be free."""
        return max(0, needed_bytes - self._free_bytes())

    def refusal(self, needed_bytes: int) -> ApiError:
        """The error for a request that does not fit, which nothing but a person can change."""
        self.refused += 1
        free = max(0, self._free_bytes())
        return ApiError(
            500,
            "There is not enough memory for this request: it needs "
            f"{_gigabytes(needed_bytes)}, and {_gigabytes(free)} are available beside the "
            f"{_gigabytes(self._reserve_bytes)} of mlx.memory_reserve_bytes. Close other programs, "
            "or answer elsewhere: `anyclaudectl mode lmstudio`. A smaller model or "
            "cache.kv_bits = 8 needs less; mlx.memory_check = false tries it all the same.",
            should_retry=False,
        )

    def _free_bytes(self) -> int:
        # MLX takes new arrays from its pool first.
        return self._machine.available_bytes() + pool_bytes() - self._reserve_bytes


def _gigabytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB"
