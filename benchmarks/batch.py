"""What shared passes save: tokens per second, and per CPU second, of parallel answers.

    python -m benchmarks.batch [--tokens N] [--prompt N] [--streams N ...] [--models NAME ...]

For each model and number of streams, two engines answer the same prompts in turn: one shares passes
(the default settings), the other decodes each request alone (`mlx.max_batch = 1`). The answers must
be equal token by token, unless shared passes have other last bits than single ones. Shown are
medians over the rounds, and the range of the ratio. The row "mixed" is the speed of one stream
while another request computes a long prompt.

Prompts are kept, so only decoding is measured. A library named by LD_PRELOAD replaces the BLAS of
the MLX wheel on Linux; the first line says which one is used.
"""

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import mlx.core as mx

from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.kv.budget import StoreLimits
from anyclaude.mlx.kv.store import KVStore
from anyclaude.runtime.settings import MlxSettings
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import Bench, words

STREAMS: Final = (1, 2, 4, 8)
LONG_PROMPT_TOKENS: Final = 4000

MODELS: Final[dict[str, Callable[[], Any]]] = {
    "tiny": lambda: tiny.build(tiny.Family.DENSE),
    "8 layers of 384": lambda: tiny.build(
        tiny.Family.DENSE,
        4096,
        hidden_size=384,
        num_hidden_layers=8,
        intermediate_size=1024,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
    ),
}


@dataclass(frozen=True)
class Speed:
    """Of all streams together."""

    per_second: float
    per_cpu_second: float


class Side:
    """An engine with or without shared passes."""

    def __init__(self, model: Any, **changes: Any) -> None:
        settings = MlxSettings(draft_tokens=0, **changes)
        store = KVStore(model, StoreLimits(1 << 30, min_prefix_tokens=0))
        self.engine = Engine(model, store, settings, eos_token_ids=frozenset())
        self._bench = Bench(self.engine, model)

    def answer(self, prompts: list[list[int]], tokens: int) -> tuple[list[list[int]], Speed]:
        """Answers all prompts at the same time."""
        for number, prompt in enumerate(prompts):
            self._bench.start(prompt, f"s{number}", max_tokens=1).answer()
        cpu, began = time.process_time(), time.monotonic()
        requests = [
            self._bench.start(prompt, f"s{number}", max_tokens=tokens)
            for number, prompt in enumerate(prompts)
        ]
        answers = [request.answer().tokens for request in requests]
        cpu, seconds = time.process_time() - cpu, time.monotonic() - began
        count = sum(map(len, answers))
        return answers, Speed(count / seconds, count / cpu)

    def while_prefilling(self, rng: random.Random) -> Speed:
        """The speed of one stream while another request computes a long prompt."""
        decoding = self._bench.start(words(rng, 50), "decoding", max_tokens=10_000)
        while not decoding.tokens.ids:
            self.engine.step()
        prefilling = self._bench.start(words(rng, LONG_PROMPT_TOKENS), "prefilling", max_tokens=1)
        before, cpu, began = len(decoding.tokens.ids), time.process_time(), time.monotonic()
        prefilling.answer()
        count = len(decoding.tokens.ids) - before
        speed = Speed(count / (time.monotonic() - began), count / (time.process_time() - cpu))
        self.engine.cancel(decoding.name)
        self.engine.step()
        return speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=160, help="of each answer")
    parser.add_argument("--prompt", type=int, default=400, help="tokens of each prompt")
    parser.add_argument("--streams", type=int, nargs="*", default=STREAMS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    arguments = parser.parse_args()
    print("BLAS:", os.environ.get("LD_PRELOAD") or "that of the MLX wheel", mx.default_device())
    print("| model | streams | tokens/s shared | alone | per CPU second shared | alone | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.models:
        model = MODELS[name]()
        sides = Side(model), Side(model, max_batch=1)
        for streams in arguments.streams:
            rounds = [
                _round(sides, _prompts(seed, streams, arguments.prompt), arguments)
                for seed in range(arguments.rounds + 1)
            ]
            # The first round measures what passes cost.
            print(_row(name, str(streams), rounds[1:]), flush=True)
        mixed = [
            tuple(side.while_prefilling(random.Random(seed)) for side in sides)
            for seed in range(arguments.rounds)
        ]
        print(_row(name, "mixed", mixed), flush=True)
        print(sides[0].engine.status.batch, flush=True)


def _prompts(seed: int, streams: int, tokens: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [words(rng, tokens) for _ in range(streams)]


def _round(
    sides: tuple[Side, ...], prompts: list[list[int]], arguments: argparse.Namespace
) -> tuple[Speed, ...]:
    answers, speeds = zip(*(side.answer(prompts, arguments.tokens) for side in sides), strict=True)
    is_exact = not sides[0].engine.status.batch.inexact_rows
    assert not is_exact or answers[0] == answers[1], "shared passes changed an answer"
    return tuple(speeds)


def _row(name: str, streams: str, rounds: list[tuple[Speed, ...]]) -> str:
    shared, alone = zip(*rounds, strict=True)
    ratios = sorted(s.per_cpu_second / a.per_cpu_second for s, a in rounds)
    return (
        f"| {name} | {streams} | {_median(s.per_second for s in shared):.0f} "
        f"| {_median(a.per_second for a in alone):.0f} "
        f"| {_median(s.per_cpu_second for s in shared):.0f} "
        f"| {_median(a.per_cpu_second for a in alone):.0f} "
        f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
    )


def _median(values: Iterator[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
