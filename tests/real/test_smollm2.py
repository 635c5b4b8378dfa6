"""A real model gives the same answers with and without its caches, to the last bit.

60 conversations in ordinary English, on SmolLM2-135M-Instruct: 20 that continue in memory, 20 that
another process continues from disk, and 20 from disk with 8-bit KV. Each token costs about a
twentieth of a second, so conversations share their first questions and are short.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from anyclaude.mlx.kv_disk import DiskTier
from tests.figures import FIGURES, RecordProperty
from tests.models import tiny
from tests.real.smollm2 import load
from tests.real.weights import material
from tests.unit.mlx.kv.kv_engine import Answer, Bench, bench, one_pass, same

ANSWER_TOKENS: Final = 2
DISK_BYTES: Final = 1 << 30
# Without a system message the template writes one of 17 tokens.
SYSTEM: Final = {"role": "system", "content": ""}
QUESTIONS: Final = (
    "Name a moon of Jupiter.",
    "Write a loop in Python.",
    "How does bread rise?",
    "Where is France?",
    "Can you count?",
)
FOLLOW_UPS: Final = ("Why?", "In one word.", "And then?", "Sure?")
Reference = Callable[[tuple[int, ...], tuple[int, ...], int], Answer]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    return load(material("smollm2"), tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="module")
def reference(smollm2: tuple[Any, Any]) -> Reference:
    """What the bare model computes from a prompt, an answer and the bits of its KV; cached."""
    model, _ = smollm2

    @functools.cache
    def computed(prompt: tuple[int, ...], said: tuple[int, ...], kv_bits: int) -> Answer:
        return one_pass(model, list(prompt), list(said), kv_bits=kv_bits)

    return computed


@pytest.mark.slow(60)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", ["memory", "disk", "disk, 8-bit KV"])
def test_a_real_model_answers_alike_with_and_without_its_caches(
    way: str,
    smollm2: tuple[Any, Any],
    reference: Reference,
    tmp_path: Path,
    record_property: RecordProperty,
) -> None:
    """First-step log-probabilities and tokens are equal in every turn, and most are reused."""
    model, tokenizer = smollm2
    kv_bits, on_disk = (8 if "8-bit" in way else 0), "disk" in way
    started = time.process_time()

    def process() -> Bench:
        """The engine of a process; with a disk, each process finds what others stored."""
        disk = DiskTier(tmp_path, "smollm2", DISK_BYTES) if on_disk else None
        return bench(tiny.Family.DENSE, kv_bits=kv_bits, disk=disk, model=model)

    engine = process()
    second_turns: list[tuple[str, list[int]]] = []
    for question in QUESTIONS:
        messages = [SYSTEM, {"role": "user", "content": question}]
        answer = _ask(engine, _ids(tokenizer, messages), question)
        messages += [{"role": "assistant", "content": tokenizer.decode(answer.tokens)}]
        for follow_up in FOLLOW_UPS:
            turn = [*messages, {"role": "user", "content": follow_up}]
            second_turns.append((question, _ids(tokenizer, turn)))
    reused = total = 0
    for number, (question, prompt) in enumerate(second_turns):
        if engine.disk is not None:
            engine.disk.close()
            engine = process()
        # In memory, the session of the question continues in place; others start from the tree.
        continued = _ask(engine, prompt, f"other {number}" if number % 2 else question)
        fresh = reference(tuple(prompt), tuple(continued.tokens), kv_bits)
        assert same(continued, fresh), f"conversation {number}: {tokenizer.decode(prompt)}"
        reused, total = reused + continued.reused, total + len(prompt)
    if engine.disk is not None:
        engine.disk.close()
    assert reused / total > 0.5
    record_property(
        FIGURES,
        f"SmolLM2, {way}: {len(second_turns)} conversations equal, {reused} of {total} tokens "
        f"reused, {time.process_time() - started:.0f} CPU seconds",
    )


def _ask(engine: Bench, prompt: list[int], session: str) -> Answer:
    return engine.start(prompt, session, max_tokens=ANSWER_TOKENS).answer()


def _ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    return ids
