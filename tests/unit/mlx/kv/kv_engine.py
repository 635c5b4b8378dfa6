"""An engine on a tiny model that a test runs turn by turn, and the fresh run to compare with."""

import functools
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from anyclaude.mlx.adapter import Sampler
from anyclaude.mlx.engine.batch import Batch
from anyclaude.mlx.engine.chunks import ChunkSizes
from anyclaude.mlx.engine.drafts import PassCosts
from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.engine.job import Job
from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.kv.budget import StoreLimits
from anyclaude.mlx.kv.lineage import LineageKey
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv_disk import DiskTier
from anyclaude.mlx.kv_disk.archive import Archive
from anyclaude.mlx.kv_disk.records import SegmentShape
from anyclaude.mlx.memory import Preflight
from anyclaude.mlx.tokens import token_array, token_digest
from anyclaude.runtime.settings import MlxSettings
from anyclaude.worker.v1.worker_pb2 import GenerateResponse
from tests.models import tiny

VOCABULARY = 300
ANSWER_TOKENS = 6
SETTINGS = MlxSettings(
    prefill_chunk_tokens=48, shared_prefill_chunk_tokens=16, decode_steps_per_turn=2
)

# Each request decodes alone.
ALONE = SETTINGS.model_copy(update={"max_batch": 1})


class Free(PassCosts):
    """Costs of passes with which as many tokens as possible are computed in one."""

    def of(self, tokens: int) -> float:
        return 1.0

    def knows(self, tokens: int) -> bool:
        return True


class Recorder:
    """Greedy sampling that records the first step's log-probabilities."""

    def __init__(self) -> None:
        self.first: np.ndarray | None = None

    def __call__(self, logprobs: mx.array) -> mx.array:
        if self.first is None:
            self.first = np.array(logprobs[0].astype(mx.float32))
        return mx.argmax(logprobs, axis=-1)


class Tokens:
    """Blocks that only collect token ids."""

    stop_sequence = None
    has_tool_use = False
    is_verbatim = True
    loop = None
    is_in_call = False

    def __init__(self) -> None:
        self.ids: list[int] = []

    def push(self, token_id: int) -> list[GenerateResponse]:
        self.ids.append(token_id)
        return []

    def finish(self, *, cut: bool) -> list[GenerateResponse]:
        return []


@dataclass
class Answer:
    logprobs: np.ndarray
    tokens: list[int]
    reused: int = 0


@dataclass
class Bench:
    """An engine that a test runs turn by turn, without threads."""

    engine: Engine
    model: Any
    disk: DiskTier | None = None
    counter: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    def segment_shape(self) -> SegmentShape | None:
        return SegmentShape.of(self.model, self.engine.store.kv_bits)

    def start(
        self,
        prompt: list[int],
        session: str,
        stable: int = 0,
        *,
        agent: str = "",
        keep: bool = True,
        max_tokens: int = ANSWER_TOKENS,
        mark_tokens: int = 40,
        ahead: bool = False,
        sampler: Sampler | None = None,
        waited_seconds: float = 0.0,
    ) -> "Request":
        """Submits a request.

        Args:
            keep: false for a utility call.
            ahead: true to compute a prompt while nobody waits, without its last token.
            sampler: replaces greedy sampling.
            waited_seconds: how long ago it came.
            mark_tokens: the length of each message, at whose end there may be a checkpoint.
        """
        marks = tuple(sorted({stable, *range(mark_tokens, len(prompt), mark_tokens)} - {0}))
        recorder, tokens = Recorder(), Tokens()
        events: list[GenerateResponse] = []
        job = Job(
            request_id=str(next(self.counter)),
            lineage=LineageKey(session, agent, token_digest(token_array(prompt[:stable]))),
            token_ids=token_array(prompt),
            marks=tuple(mark for mark in marks if mark < len(prompt)),
            stable_tokens=stable,
            max_tokens=0 if ahead else max_tokens,
            window_limited=False,
            sampler=sampler or recorder,
            new_blocks=lambda: tokens,
            emit=events.append,
            keep=keep,
            ahead=ahead,
            created=time.monotonic() - waited_seconds,
        )
        self.engine.submit(job)
        return Request(self.engine, job.request_id, recorder, tokens, events)


@dataclass
class Request:
    """A submitted request and what came of it."""

    engine: Engine
    name: str
    recorder: Recorder
    tokens: Tokens
    events: list[GenerateResponse]

    @property
    def done(self) -> bool:
        return bool(self.events) and self.events[-1].HasField("finished")

    def answer(self) -> Answer:
        while not self.done:
            self.engine.step()
        assert self.recorder.first is not None
        usage = self.events[0].started.usage
        return Answer(self.recorder.first, self.tokens.ids, usage.cache_read_tokens)

    def cancel_after(self, turns: int) -> None:
        for _ in range(turns):
            if self.done:
                # An idle engine would wait for a command.
                return
            self.engine.step()
        self.engine.cancel(self.name)
        self.engine.step()


def bench(
    family: tiny.Family,
    limit: int = 1 << 30,
    *,
    kv_bits: int = 0,
    live_idle_seconds: float = 3600.0,
    live_fraction: float = math.inf,
    clock: Callable[[], float] = time.time,
    disk: DiskTier | None = None,
    bytes_per_token: float = 0.0,
    model: Any = None,
    preflight: Preflight | None = None,
    chunks: ChunkSizes | None = None,
    settings: MlxSettings = SETTINGS,
    eos: frozenset[int] = frozenset(),
    draft_costs: PassCosts | None = None,
) -> Bench:
    """By default all live caches stay, so that they are continued in place as often as possible.

    Requests that decode share their passes whenever they can.
    """
    model = model or _model(family)
    limits = StoreLimits(
        limit,
        checkpoints_per_lineage=4,
        min_prefix_tokens=16,
        kv_bits=kv_bits,
        live_idle_seconds=live_idle_seconds,
        live_fraction=live_fraction,
    )
    store = KVStore(
        model,
        limits,
        storage=Archive(disk) if disk else None,
        clock=clock,
        bytes_per_token=bytes_per_token,
    )
    engine = Engine(
        model,
        store,
        settings,
        eos_token_ids=eos,
        preflight=preflight,
        chunks=chunks,
        pass_costs=draft_costs,
        batch=free_batch(model, kv_bits, settings),
    )
    return Bench(engine, model, disk)


def free_batch(model: Any, kv_bits: int = 0, settings: MlxSettings = SETTINGS) -> Batch:
    """Shared passes whenever two requests decode."""
    return Batch(
        model,
        kv_bits,
        max_rows=settings.max_batch,
        clock=time.process_time,
        costs=Free(),
    )


@functools.cache
def _model(family: tiny.Family) -> Any:
    """One model for all engines, since nothing writes to it."""
    return tiny.build(family, VOCABULARY)


def fresh(
    family: tiny.Family, prompt: list[int], *, kv_bits: int = 0, mark_tokens: int = 40
) -> Answer:
    """The reference: the same token ids in a new cache of a new engine, with the same settings."""
    it = bench(family, kv_bits=kv_bits)
    return it.start(prompt, "fresh", mark_tokens=mark_tokens).answer()


def same(a: Answer, b: Answer) -> bool:
    return bool(np.array_equal(a.logprobs, b.logprobs)) and a.tokens == b.tokens


def one_pass(model: Any, prompt: list[int], said: list[int], *, kv_bits: int = 0) -> Answer:
    """What the bare model computes from a prompt and an answer in one pass, without our engine.

    The tokens are the most likely ones at each step. If they are those of `said`, then greedy
    decoding in a new cache gives `said`.
    """
    ids = mx.array([prompt + said[:-1]])
    hidden = model.model(ids, kinds.new_layers(model, kv_bits))[:, len(prompt) - 1 :]
    # The head of a small model is a fifth of its work; only the last positions need it.
    head = model.lm_head if "lm_head" in model else model.model.embed_tokens.as_linear
    logits = head(hidden)[0]
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    tokens: Any = mx.argmax(logprobs, axis=-1).tolist()
    return Answer(np.array(logprobs[0].astype(mx.float32)), tokens)


def is_fresh(answer: Answer, family: tiny.Family, prompt: list[int], *, kv_bits: int = 0) -> bool:
    """Whether an answer equals, bit by bit, what the bare model computes without any cache."""
    return same(answer, one_pass(_model(family), prompt, answer.tokens, kv_bits=kv_bits))


def words(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(VOCABULARY) for _ in range(count)]
