"""What drafts save: tokens per pass and CPU seconds per answer, on a real model.

    python -m benchmarks.speculation [--files N] [--tokens N] [--bfloat16]

SmolLM2-135M-Instruct (`ANYCLAUDE_TEST_MATERIAL`, see tests/real/material.py) copies and edits parts
of real Python files from the standard library, and writes prose. Each answer is generated greedily
by two engines, with and without drafts, and must be equal token by token. Weights are float32, or
bfloat16 with `--bfloat16`. A library named by LD_PRELOAD replaces the BLAS of the MLX wheel on
Linux; the first line says which one is used.
"""

import argparse
import os
import random
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.kv.budget import StoreLimits
from anyclaude.mlx.kv.store import KVStore
from anyclaude.runtime.settings import MlxSettings
from tests.real.smollm2 import load
from tests.real.weights import material
from tests.unit.mlx.kv.kv_engine import Bench

PART_LINES = 24
PROSE = (
    "Explain how bread rises.",
    "Tell a short story about a lighthouse keeper.",
    "Why is the sky blue?",
    "Describe a walk through a forest in autumn.",
)


@dataclass(frozen=True)
class Task:
    kind: str
    name: str
    question: str
    # With which the answer begins, as part of the prompt.
    opening: str


@dataclass
class Sums:
    tokens: int = 0
    passes: int = 0
    seconds: float = 0.0

    def add(self, other: "Sums") -> None:
        self.tokens += other.tokens
        self.passes += other.passes
        self.seconds += other.seconds


class Side:
    """An engine with or without drafts."""

    def __init__(self, model: Any, tokenizer: Any, draft_tokens: int) -> None:
        limits = StoreLimits(1 << 30, min_prefix_tokens=0)
        settings = MlxSettings(draft_tokens=draft_tokens)
        eos = frozenset({int(tokenizer.eos_token_id)})
        self._engine = Engine(model, KVStore(model, limits), settings, eos_token_ids=eos)
        self._bench = Bench(self._engine, model)

    def answer(self, prompt: list[int], name: str, max_tokens: int) -> tuple[list[int], Sums]:
        """The answer, and what decoding it took."""
        # The prompt is computed first, so that only decoding is measured.
        self._bench.start(prompt, name, ahead=True)
        request = self._bench.start(prompt, name, max_tokens=1)
        request.answer()
        began = time.process_time()
        request = self._bench.start(prompt, name, max_tokens=max_tokens)
        answer = request.answer()
        seconds = time.process_time() - began
        passes = request.events[-1].finished.decoded.passes
        return answer.tokens, Sums(len(answer.tokens), passes, seconds)


def tasks(files: int) -> Iterator[Task]:
    """The tasks over parts of so many files, and the prose."""
    rng = random.Random(4)
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for path in rng.sample([path for path in sources if path.stat().st_size > 8_000], files):
        lines = path.read_text(encoding="utf-8").splitlines()
        first = next(n for n, line in enumerate(lines) if line.startswith(("def ", "class ")))
        part = "\n".join(lines[first : first + PART_LINES])
        code = f"```python\n{part}\n```"
        yield Task("copy", path.name, f"Repeat this code exactly:\n{code}", "```python\n")
        edit = f"Add a comment above the first line of this code and repeat all of it:\n{code}"
        yield Task("edit", path.name, edit, "```python\n#")
    for question in PROSE:
        yield Task("prose", question, question, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=160, help="the longest answer")
    parser.add_argument("--bfloat16", action="store_true")
    arguments = parser.parse_args()
    print("BLAS:", os.environ.get("LD_PRELOAD") or "that of the MLX wheel", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = load(material("smollm2"), Path(folder))
    if not arguments.bfloat16:
        model.update(tree_map(lambda weight: weight.astype(mx.float32), model.parameters()))
    mx.eval(model.parameters())
    sides = {drafts: Side(model, tokenizer, drafts) for drafts in (0, MlxSettings().draft_tokens)}
    totals: dict[str, tuple[Sums, Sums]] = {}
    for task in tasks(arguments.files):
        prompt = _prompt(tokenizer, task)
        (plain, without), (drafted, with_drafts) = (
            side.answer(prompt, f"{task.kind} {task.name}", arguments.tokens)
            for side in sides.values()
        )
        assert plain == drafted, f"{task.kind} of {task.name} differs"
        both = totals.setdefault(task.kind, (Sums(), Sums()))
        both[0].add(without)
        both[1].add(with_drafts)
        print(_line(f"{task.kind} {task.name}", without, with_drafts), flush=True)
    for kind, (without, with_drafts) in totals.items():
        print(_line(f"all of {kind}", without, with_drafts))


def _prompt(tokenizer: Any, task: Task) -> list[int]:
    messages = [{"role": "user", "content": task.question}]
    ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    ids += tokenizer.encode(task.opening, add_special_tokens=False)
    return ids


def _line(name: str, without: Sums, with_drafts: Sums) -> str:
    return (
        f"{name}: {with_drafts.tokens} tokens, {with_drafts.tokens / with_drafts.passes:.2f} per "
        f"pass, {without.seconds:.1f} CPU seconds without drafts, {with_drafts.seconds:.1f} with "
        f"them: {without.seconds / with_drafts.seconds:.2f} times faster"
    )


if __name__ == "__main__":
    main()
