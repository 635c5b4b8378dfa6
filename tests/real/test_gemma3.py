"""Gemma 3 gives the same answers with and without its caches, past its sliding window too.

It is not part of the suite, because of its size and its licence: `make real` runs it.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from anyclaude.mlx.kv_disk import DiskTier
from tests.figures import FIGURES, RecordProperty
from tests.models import tiny
from tests.real.weights import material
from tests.unit.mlx.kv.kv_engine import Answer, Bench, bench, same

CONVERSATIONS: Final = 10
ANSWER_TOKENS: Final = 2
DISK_BYTES: Final = 1 << 30
# More than the window of 512 tokens, whatever a conversation says.
LONG_TOKENS: Final = 540
SENTENCES: Final = (
    "The old harbour lies behind the church, and boats come in at night.",
    "Bread rises because yeast makes gas from sugar.",
    "A loop in Python repeats its body for each item of a list.",
    "Jupiter has many moons, four of which Galileo saw.",
    "She wrote the letter twice and sent neither.",
    "Rain fell on the hills for nine days without a break.",
)


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    pytest.importorskip("gguf", reason="`make real` installs gguf, which reads the weights")
    from tests.real.gemma3 import load

    parts = material("gemma3")
    return load(parts, parts.parent / "tokenizers" / "gemma3", tmp_path_factory.mktemp("gemma3"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("length", ["short", "past the window"])
def test_a_model_with_a_sliding_window_answers_alike_with_and_without_its_caches(
    length: str, gemma3: tuple[Any, Any], tmp_path: Path, record_property: RecordProperty
) -> None:
    """The second turn of each conversation is equal from memory, from disk, and computed fresh."""
    model, tokenizer = gemma3
    began = time.process_time()
    talks = list(
        _conversations(tokenizer, random.Random(length), LONG_TOKENS * (length != "short"))
    )
    disk = DiskTier(tmp_path, "gemma3", DISK_BYTES)
    engine = _engine(model, disk)
    seconds, from_memory = [], []
    for number, (first, more) in enumerate(talks):
        answer = _ask(engine, first, f"talk {number}")
        seconds.append([*first, *answer.tokens, *more])
        from_memory.append(_ask(engine, seconds[-1], f"talk {number}"))
    disk.close()
    disk = DiskTier(tmp_path, "gemma3", DISK_BYTES)
    engine = _engine(model, disk)
    from_disk = [_ask(engine, second, f"talk {n}") for n, second in enumerate(seconds)]
    disk.close()
    for number, second in enumerate(seconds):
        fresh = _ask(_engine(model, None), second, "fresh")
        assert fresh.reused == 0
        assert same(from_memory[number], fresh), number
        assert same(from_disk[number], fresh), number
    total = sum(map(len, seconds))
    reused = [sum(answer.reused for answer in answers) for answers in (from_memory, from_disk)]
    assert min(reused) / total > 0.5
    record_property(
        FIGURES,
        f"Gemma 3 270M, {length}: {len(seconds)} conversations equal; of {total} tokens "
        f"{reused[0]} reused from memory and {reused[1]} from disk; "
        f"{time.process_time() - began:.0f} CPU seconds",
    )


def _conversations(
    tokenizer: Any, rng: random.Random, length: int
) -> Iterator[tuple[list[int], list[int]]]:
    """First prompts and second questions; all begin with the same text of `length` tokens."""
    shared = _text(tokenizer, rng, length) if length else []
    for _ in range(CONVERSATIONS):
        yield (
            [tokenizer.bos_token_id, *shared, *_text(tokenizer, rng, 30)],
            _text(tokenizer, rng, 12),
        )


def _text(tokenizer: Any, rng: random.Random, length: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < length:
        ids += tokenizer.encode(f" {rng.choice(SENTENCES)}", add_special_tokens=False)
    return ids


def _engine(model: Any, disk: DiskTier | None) -> Bench:
    return bench(tiny.Family.SLIDING, disk=disk, model=model)


def _ask(engine: Bench, prompt: list[int], session: str) -> Answer:
    return engine.start(prompt, session, max_tokens=ANSWER_TOKENS).answer()
