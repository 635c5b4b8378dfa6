"""Answers that share passes of the model are those that each request gets alone, bit by bit.

Requests of all kinds start and end at random steps: greedy and sampled, with and without a mask,
some of them with drafts; they end at a stop token, at their length, or are cancelled. Compared are
the tokens, what is kept in the caches, and the answers that continue them.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import glm4_moe_lite

from anyclaude.mlx.adapter import Sampler, prefill
from anyclaude.mlx.decode import make_sampler
from anyclaude.mlx.decode.sampling import seeded
from anyclaude.mlx.engine import batch
from anyclaude.mlx.engine.batch import Batch
from anyclaude.mlx.engine.drafts import PassCosts
from anyclaude.mlx.kv import rows as kv_rows
from anyclaude.mlx.kv.live import LiveCache
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import (
    ALONE,
    SETTINGS,
    VOCABULARY,
    Bench,
    Free,
    Request,
    bench,
    words,
)

CACHES = [*((family, 0) for family in tiny.Family), (tiny.Family.WIDE, 8), (tiny.Family.WIDE, 4)]
REQUESTS = 10
LONGEST_ANSWER = 40
# About every 75th token ends an answer.
EOS = frozenset(range(0, VOCABULARY, 75))


@dataclass(frozen=True)
class Plan:
    """A request and what happens to it."""

    name: str
    prompt: list[int]
    new_sampler: Callable[[], Sampler]
    max_tokens: int
    is_cancelled: bool

    def start(self, it: Bench) -> Request:
        return it.start(
            self.prompt, self.name, sampler=self.new_sampler(), max_tokens=self.max_tokens
        )


def plans(seed: int) -> Iterator[Plan]:
    rng = random.Random(seed)
    for number in range(REQUESTS):
        prompt, length = words(rng, rng.randrange(2, 90)), rng.randrange(1, LONGEST_ANSWER)
        # An answer that repeats itself has drafts.
        sampler = _repeating if number % 4 == 0 else _random(rng, number)
        yield Plan(f"s{number}", prompt, sampler, length, is_cancelled=number % 4 == 3)


def _repeating() -> Sampler:
    tokens = itertools.cycle(range(1, 6))
    return lambda _: mx.array([next(tokens)])


def _random(rng: random.Random, number: int) -> Callable[[], Sampler]:
    """A sampler with a temperature, a seed and a mask of its own."""
    inner = make_sampler(rng.choice([0.0, 0.8, 1.5]), 0.9, 40)
    mask = mx.array([rng.choice([0.0, -mx.inf]) for _ in range(VOCABULARY)])
    return lambda: seeded(lambda logprobs: inner(logprobs + mask), 1000 * number, 0)


def run_together(it: Bench, seed: int) -> list[tuple[Plan, Request]]:
    """Runs the plans; each starts, and some are cancelled, at a random step."""
    rng, waiting = random.Random(seed), list(plans(seed))
    started: list[tuple[Plan, Request]] = []
    while waiting or it.engine.status.running_requests or it.engine.status.queued_requests:
        if waiting and (rng.random() < 0.5 or not it.engine.status.running_requests):
            plan = waiting.pop(0)
            started.append((plan, plan.start(it)))
        it.engine.step()
        for plan, request in started:
            if plan.is_cancelled and request.tokens.ids and rng.random() < 0.2:
                it.engine.cancel(request.name)
    return started


def differences(it: Bench, alone: Bench, seed: int) -> list[str]:
    """How answers and caches differ from those of requests that ran alone.

    The next turn of each conversation continues both caches.
    """
    found = []
    for plan, request in run_together(it, seed):
        reference, got = plan.start(alone), request.tokens.ids
        expected = run_to_end(reference)
        if got != (expected if request.done else expected[: len(got)]):
            found.append(f"answer of {plan.name}")
        follow_up = [*plan.prompt, *got, 7, 8, 9]
        continued, again = (b.start(follow_up, plan.name).answer() for b in (it, alone))
        if (continued.logprobs != again.logprobs).any() or continued.tokens != again.tokens:
            found.append(f"answer that follows {plan.name}")
    verification = it.engine.verification(0)
    while verification.step():
        pass
    return found + verification.findings.wrong


def run_to_end(request: Request) -> list[int]:
    while not request.done:
        request.engine.step()
    return request.tokens.ids


def benches(family: tiny.Family, kv_bits: int = 0) -> tuple[Bench, Bench]:
    """Engines that share passes, and that run each request alone."""
    return (
        bench(family, kv_bits=kv_bits, eos=EOS, draft_costs=Free()),
        bench(family, kv_bits=kv_bits, eos=EOS, settings=ALONE),
    )


@pytest.mark.parametrize(("family", "kv_bits"), CACHES)
def test_rows_equal_the_same_requests_alone(family: tiny.Family, kv_bits: int) -> None:
    """No answer depends on those with which it shares passes, nor on when they come and go.

    Answers pass the sliding windows of 32 tokens.
    """
    it, alone = benches(family, kv_bits)
    if batch.chunk_difference(it.model, kv_bits):
        pytest.skip("the BLAS of this process computes other last bits in passes of other sizes")
    assert differences(it, alone, seed=1) == []
    status = it.engine.status
    assert status.batch.tokens > 2 * status.batch.passes > 20
    assert status.accepted_tokens
    assert not alone.engine.status.batch.passes


@pytest.mark.parametrize(("family", "kv_bits"), CACHES)
def test_a_row_does_not_depend_on_its_neighbours(family: tiny.Family, kv_bits: int) -> None:
    """In a pass of four, other neighbours leave a row's logits the same, with any BLAS."""
    model, rng = tiny.build(family, VOCABULARY), random.Random(2)
    shared_model = batch.SharedModel(model)

    def live(prompt: list[int]) -> LiveCache:
        it = LiveCache.empty(model, kv_bits=kv_bits, max_checkpoints=1)
        prefill(model, it.layers, prompt)
        it.tokens.extend(prompt)
        return it

    own, place = words(rng, 50), 2
    rows = []
    for _ in range(3):
        prompts = [words(rng, rng.randrange(2, 90)) for _ in range(4)]
        prompts[place] = own
        tokens = words(rng, 4)
        tokens[place] = 7
        rows.append(shared_model(mx.array(tokens), [live(prompt) for prompt in prompts])[place])
    assert all(mx.array_equal(rows[0], row) for row in rows[1:])


@pytest.mark.parametrize("family", [tiny.Family.DENSE, tiny.Family.HYBRID])
def test_swapped_rows_are_noticed(family: tiny.Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of this file fails if two rows get each other's logits."""
    computed = batch.SharedModel.__call__

    def swapped(*arguments: Any) -> mx.array:
        logits = computed(*arguments)
        return mx.concatenate([logits[1::-1], logits[2:]])

    it, alone = benches(family)
    monkeypatch.setattr(batch, "probed_differences", lambda *_: ((n, 0.0) for n in range(2, 9)))
    monkeypatch.setattr(batch.SharedModel, "__call__", swapped)
    assert differences(it, alone, seed=1)


def test_a_row_that_fails_leaves_the_others_alone() -> None:
    """Only the request whose answer cannot be decoded fails, and the others' answers are right."""
    it, alone = benches(tiny.Family.DENSE)
    chosen = [plan for plan in plans(3) if not plan.is_cancelled][1:4]
    requests = [plan.start(it) for plan in chosen]

    def fail(token_id: int) -> list[Any]:
        if len(requests[0].tokens.ids) == 3:
            raise ValueError("no such block")
        requests[0].tokens.ids.append(token_id)
        return []

    requests[0].tokens.push = fail  # type: ignore[method-assign]
    answers = [run_to_end(request) for request in requests[1:]]
    assert requests[0].events[-1].failed.status == 500
    assert it.engine.status.batch.passes
    assert answers == [run_to_end(plan.start(alone)) for plan in chosen[1:]]


@pytest.mark.parametrize(("family", "kv_bits"), CACHES)
def test_a_shared_pass_copies_no_cache(family: tiny.Family, kv_bits: int) -> None:
    """Whatever the caches hold, a pass needs less memory than the buffers of one of them."""
    model = tiny.build(family)
    empty = LiveCache.empty(model, kv_bits=kv_bits, max_checkpoints=1)
    prefill(model, empty.layers, [1, 2, 3])
    empty.tokens.extend([1, 2, 3])
    lives = [empty.fork(3, spare_tokens=50_000) for _ in range(3)]
    active = mx.get_active_memory()
    mx.reset_peak_memory()
    shared_model = batch.SharedModel(model)
    for _ in range(4):
        mx.eval(shared_model(mx.array([7, 8, 9]), lives))
        for live in lives:
            live.tokens.extend([7])
    assert mx.get_peak_memory() - active < lives[0].nbytes / 2


def decoded(it: Bench, count: int) -> list[list[int]]:
    requests = [it.start(words(random.Random(n), 20), f"s{n}") for n in range(count)]
    return [run_to_end(request) for request in requests]


@pytest.mark.parametrize("chunk_difference", [0.0, 0.0001])
def test_inexact_passes_are_shared_where_prompts_are_inexact_too(
    chunk_difference: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a shared pass has other bits, it is used only if a prompt's chunk has them as well."""
    monkeypatch.setattr(batch, "probed_differences", lambda *_: iter([(2, 0.001), (3, 0.0005)]))
    monkeypatch.setattr(batch, "chunk_difference", lambda *_: chunk_difference)
    it = bench(tiny.Family.DENSE)
    decoded(it, 3)
    status = it.engine.status.batch
    assert bool(status.passes) is bool(chunk_difference)
    assert status.inexact_rows == (2, 3)
    assert status.largest_difference == 0.001
    assert it.engine.verification(0).findings.exact is not bool(chunk_difference)


def test_the_probe_measures_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe finds a shared pass that computes something else, and says how far it is off."""
    model, computed = tiny.build(tiny.Family.DENSE), batch.SharedModel.__call__
    assert dict(batch.probed_differences(model, 0, 3)) == {2: 0, 3: 0}
    monkeypatch.setattr(batch.SharedModel, "__call__", lambda *a: 1.25 * computed(*a))
    assert dict(batch.probed_differences(model, 0, 3))[3] == pytest.approx(0.25)


def test_the_probe_runs_while_nothing_else_does() -> None:
    """After the first answer an idle engine probes step by step, so no answer waits for it."""
    it = bench(tiny.Family.DENSE, settings=SETTINGS.model_copy(update={"max_batch": 3}))
    decoded(it, 1)
    known = []
    for _ in range(2):
        it.engine.step()
        known.append(len(it.engine.status.batch.exact_rows))
    assert known == [1, 2]
    decoded(it, 2)
    assert it.engine.status.batch.passes


def test_latent_attention_shares_passes() -> None:
    """Multi-head latent attention, which computes with the cached keys itself, gives equal bits."""
    it = bench(tiny.Family.DENSE, model=latent_attention())
    answers = decoded(it, 3)
    status = it.engine.status.batch
    assert status.passes
    if status.inexact_rows:
        pytest.skip("the BLAS of this process computes other last bits in passes of other sizes")
    alone = bench(tiny.Family.DENSE, model=latent_attention(), settings=ALONE)
    assert answers == decoded(alone, 3)


def test_a_model_that_cannot_share_passes_runs_each_request_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A class of layers that has no form for several rows is named, and answers are right."""
    none = SimpleNamespace(is_full_attention=lambda _: False)
    monkeypatch.setattr(kv_rows, "kinds", none)
    it = bench(tiny.Family.DENSE)
    answers = decoded(it, 2)
    status = it.engine.status.batch
    assert not status.passes
    assert "KVCache cannot be shared" in status.unsupported
    assert answers == decoded(bench(tiny.Family.DENSE, settings=ALONE), 2)


def latent_attention() -> Any:
    """A tiny GLM-4.7-Flash."""
    mx.random.seed(0)
    return glm4_moe_lite.Model(
        glm4_moe_lite.ModelArgs(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=32,
            moe_intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            n_routed_experts=2,
            num_experts_per_tok=1,
            kv_lora_rank=16,
            q_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
        )
    )


def test_passes_are_shared_where_that_pays() -> None:
    """Each size of a shared pass is measured, and the best one is used."""
    costs = PassCosts()
    it = Batch(
        tiny.build(tiny.Family.DENSE),
        0,
        max_rows=8,
        clock=lambda: 0.0,
        costs=costs,
    )
    assert it.rows(8) == 1, "single passes were not measured yet"
    for _ in range(3):
        it.add_single(1.0)
    assert it.rows(8) == 8
    for _ in range(3):
        costs.add(8, 9.0)
    assert it.rows(8) in (2, 3, 4)
    for _ in range(3):
        costs.add(4, 4.1)
        costs.add(2, 2.1)
    assert it.rows(8) == 1
