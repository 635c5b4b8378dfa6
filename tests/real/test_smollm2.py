"""A real model gives the same answers with and without its caches, to the last bit.

60 conversations in ordinary English, on SmolLM2-135M-Instruct: continued in place, assembled from
the prefix tree, and read back from disk by another engine, with full and with 8-bit KV.
"""

import random
import time
from pathlib import Path
from typing import Any, Final

import pytest

from anyclaude.mlx.kv_disk import DiskTier
from tests.figures import FIGURES, RecordProperty
from tests.models import tiny
from tests.real.smollm2 import load
from tests.real.weights import material
from tests.unit.mlx.kv.kv_engine import Answer, Bench, bench, same

CONVERSATIONS: Final = 20
ANSWER_TOKENS: Final = 2
DISK_BYTES: Final = 1 << 30
# Shorter than the template's own, since each token costs a twentieth of a second.
SYSTEM: Final = {"role": "system", "content": "Be brief."}
TOPICS: Final = (
    "the capital of France",
    "a loop in Python",
    "how bread rises",
    "the moons of Jupiter",
    "a river in Peru",
    "the sum of 17 and 25",
    "why the sky is blue",
    "a poem with four lines",
)
ASKS: Final = (
    "Tell me about {}.",
    "What is {}?",
    "Explain {} to a child.",
    "One fact on {}, please.",
)
FOLLOW_UPS: Final = (
    "Why?",
    "Say it in one word.",
    "And then?",
    "Give an example.",
    "Are you sure?",
)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    return load(material("smollm2"), tmp_path_factory.mktemp("smollm2"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["memory", "disk", "disk, 8-bit KV"])
def test_a_real_model_answers_alike_with_and_without_its_caches(
    way: str, smollm2: tuple[Any, Any], tmp_path: Path, record_property: RecordProperty
) -> None:
    """First-step log-probabilities and tokens are equal in every turn, and most are reused."""
    model, tokenizer = smollm2
    kv_bits, rng = (8 if "8-bit" in way else 0), random.Random(way)
    reused = total = 0
    started = time.process_time()
    for number in range(CONVERSATIONS):
        topic, ask, follow_up = rng.choice(TOPICS), rng.choice(ASKS), rng.choice(FOLLOW_UPS)
        messages = [SYSTEM, {"role": "user", "content": ask.format(topic)}]
        disk = DiskTier(tmp_path / str(number), "smollm2", DISK_BYTES) if "disk" in way else None
        engine = _engine(model, kv_bits, disk)
        first = _ids(tokenizer, messages)
        answer = _ask(engine, first, "first")
        said = tokenizer.decode(answer.tokens)
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": follow_up}]
        second = _ids(tokenizer, messages)
        if disk is not None:
            disk.close()
            disk = DiskTier(tmp_path / str(number), "smollm2", DISK_BYTES)
            engine = _engine(model, kv_bits, disk)
        # In memory, the next turn continues in place; another session starts from the tree.
        session = "first" if number % 2 else "other"
        continued = _ask(engine, second, session)
        if disk is not None:
            disk.close()
        fresh = _ask(_engine(model, kv_bits, None), second, "fresh")
        assert same(continued, fresh), f"conversation {number}: {messages}"
        assert fresh.reused == 0
        reused, total = reused + continued.reused, total + len(second)
    seconds = time.process_time() - started
    assert reused / total > 0.5
    record_property(
        FIGURES,
        f"SmolLM2, {way}: {CONVERSATIONS} conversations equal, {reused} of {total} tokens reused, "
        f"{seconds:.0f} CPU seconds",
    )


def _engine(model: Any, kv_bits: int, disk: DiskTier | None) -> Bench:
    return bench(tiny.Family.DENSE, kv_bits=kv_bits, disk=disk, model=model)


def _ask(engine: Bench, prompt: list[int], session: str) -> Answer:
    return engine.start(prompt, session, max_tokens=ANSWER_TOKENS).answer()


def _ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    return ids
