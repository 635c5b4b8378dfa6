"""Measures a turn before the model runs: parse, render, tokenise, look up; whole and warm.

    python -m benchmarks.warm_path

A conversation in the shape of Claude Code's (tools, instructions, a long tool loop over the
standard library's sources) grows by about 50 tokens a turn, at 10,000 and at 100,000 tokens. Both
sizes, and whole and warm, alternate in one run. The cache is filled without a model, since lookup
compares token ids only. With `ANYCLAUDE_TEST_MATERIAL` (tests/real/material.py) vocabulary and chat
template are Qwen3's. Times are this thread's CPU time, so other load on the machine does not
blur ratios of milliseconds.
"""

import hashlib
import json
import os
import random
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from anyclaude.messages.requests import parse_messages_request
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.kv.budget import StoreLimits
from anyclaude.mlx.kv.lineage import Lease, LineageKey
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.prompt import Prompt, PromptRenderer
from anyclaude.mlx.tokens import TokenArray, token_digest
from benchmarks.prompts import WORDS, tools
from benchmarks.vocabulary import real_qwen3
from tests.models import tiny
from tests.models.templates import TEMPLATES
from tests.models.tokenizers import markup_tokens, special_tokens, wrap

VOCABULARY = 16_000
SIZES = (10_000, 100_000)
TURNS = 60
WHOLE_EVERY = 4
NEW_TOKENS = range(40, 61)
MIN_SPEEDUP = 20
MAX_GROWTH = 4
_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "intermediate_size": 128,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


@dataclass
class Conversation:
    """A conversation that grows by the same steps at every size."""

    body: dict[str, Any]
    session: str
    turn: int = 0

    def json(self) -> bytes:
        return json.dumps(self.body).encode()

    def go_on(self, rng: random.Random) -> None:
        """Adds a call and its result, or an answer and a question; about 50 tokens with markup."""
        self.turn += 1
        words = " ".join(rng.sample(WORDS, 10))
        if self.turn % 2:
            call = {"id": f"toolu_{self.turn}", "name": "Tool3", "input": {"path": words}}
            said: Any = [{"type": "tool_use", **call}]
            heard: Any = [{"type": "tool_result", "tool_use_id": call["id"], "content": "found"}]
        else:
            said, heard = f"Done: {words}.", f"Now {words}, and check that it works."
        turns = [{"role": "assistant", "content": said}, {"role": "user", "content": heard}]
        self.body = self.body | {"messages": [*self.body["messages"], *turns]}


@dataclass
class Times:
    """Milliseconds."""

    whole: list[float] = field(default_factory=list)
    parse: list[float] = field(default_factory=list)
    render: list[float] = field(default_factory=list)
    lookup: list[float] = field(default_factory=list)

    @property
    def warm(self) -> float:
        sums = map(sum, zip(self.parse, self.render, self.lookup, strict=True))
        return statistics.median(sums)


class Bench:
    """One conversation, with a renderer and a store that contain it."""

    def __init__(self, target_tokens: int) -> None:
        self.rng = random.Random(target_tokens)
        self.tokenizer = tokenizer()
        self.renderer = PromptRenderer(self.tokenizer)
        self.store = KVStore(tiny.build(tiny.Family.DENSE, **_SHAPE), StoreLimits(8 << 30))
        self.conversation = Conversation(_body(self.rng), f"session-{target_tokens}")
        for messages in _tool_loop(self.rng):
            self.conversation.body["messages"] += messages
            self.prompt = self._rendered()
            # The size that is reached in the middle of the measured turns.
            if len(self.prompt.token_ids) >= target_tokens - TURNS * NEW_TOKENS.start // 2:
                break
        self.release(self.acquire(self.prompt))
        self.times = Times()

    def _rendered(self) -> Prompt:
        return self.renderer.render(parse_messages_request(self.conversation.json()))

    def acquire(self, prompt: Prompt) -> Lease:
        """Acquires a lease as the engine does."""
        ids, stable = prompt.token_ids, prompt.stable_tokens
        key = LineageKey(self.conversation.session, "", token_digest(ids[:stable]))
        self.store.budget.fit_request(key, ids)
        return self.store.acquire(key, ids, stable)

    def release(self, lease: Lease) -> None:
        _fill(lease, self.prompt.token_ids)
        self.store.release(lease)

    def warm_turn(self) -> None:
        self.conversation.go_on(self.rng)
        body, before = self.conversation.json(), len(self.prompt.token_ids)
        moments = [time.thread_time()]
        request = parse_messages_request(body)
        moments.append(time.thread_time())
        self.prompt = self.renderer.render(request)
        moments.append(time.thread_time())
        lease = self.acquire(self.prompt)
        moments.append(time.thread_time())
        new = len(self.prompt.token_ids) - before
        assert new in NEW_TOKENS, f"{new} new tokens"
        assert len(self.prompt.token_ids) - lease.lookup.reused < NEW_TOKENS.stop + 8
        self.release(lease)
        times = self.times
        for kept, (start, end) in zip(
            (times.parse, times.render, times.lookup),
            pairwise(moments),
            strict=True,
        ):
            kept.append((end - start) * 1e3)

    def whole_turn(self) -> None:
        """Renders the same prompt with a renderer whose caches are empty."""
        fresh = PromptRenderer(self.tokenizer)
        body = self.conversation.json()
        began = time.thread_time()
        prompt = fresh.render(parse_messages_request(body))
        self.times.whole.append((time.thread_time() - began) * 1e3)
        assert (prompt.token_ids == self.prompt.token_ids).all()
        assert prompt.cut_points == self.prompt.cut_points


def _fill(lease: Lease, ids: TokenArray) -> None:
    """Fills the cache with zeros in place of a model's keys and values."""
    new = ids[len(lease.live) :]
    for layer in lease.live.layers:
        zeros = mx.zeros((1, 1, len(new), 16))
        layer.update_and_fetch(zeros, zeros)
    lease.live.tokens.extend(new)


def tokenizer() -> TokenizerWrapper:
    """Qwen3's; else byte-level BPE, trained on the standard library once per machine."""
    if real := real_qwen3():
        return real
    files = sorted(map(str, Path(sysconfig.get_path("stdlib")).glob("*.py")))
    name = hashlib.sha256(f"{VOCABULARY} {files}".encode()).hexdigest()[:16]
    kept = Path(tempfile.gettempdir()) / f"anyclaude-benchmark-{os.getuid()}-{name}.json"
    if not kept.exists():
        kept.write_text(_trained(files).to_str())
    family = "qwen3"
    built = Tokenizer.from_str(kept.read_text())
    return wrap(built, TEMPLATES[family], special_tokens(family), markup_tokens(family))


def _trained(files: list[str]) -> Tokenizer:
    built = Tokenizer(models.BPE())
    built.normalizer = normalizers.NFC()
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train(files, trainer)
    return built


def _body(rng: random.Random) -> dict[str, Any]:
    words = " ".join(rng.choice(WORDS) for _ in range(1500))
    return {
        "model": "benchmark",
        "max_tokens": 4,
        "system": [{"type": "text", "text": f"You are a coding assistant. {words}"}],
        "tools": tools(rng),
        "messages": [{"role": "user", "content": "Find out what the standard library does."}],
    }


def _tool_loop(rng: random.Random) -> Iterator[list[dict[str, Any]]]:
    """Calls and their results, each a part of a source file."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    while True:
        yield _read(rng, files, rng.getrandbits(64))


def _read(rng: random.Random, files: list[Path], number: int) -> list[dict[str, Any]]:
    file, call_id = rng.choice(files), f"toolu_{number:x}"
    lines = file.read_text(errors="replace").splitlines(keepends=True)
    start = rng.randrange(max(1, len(lines) - 50))
    use = {"type": "tool_use", "id": call_id, "name": "Tool1", "input": {"path": str(file)}}
    content = "".join(lines[start : start + rng.randint(5, 80)]) or "(empty)"
    result = {"type": "tool_result", "tool_use_id": call_id, "content": content}
    return [
        {"role": "assistant", "content": [{"type": "text", "text": "Let me look."}, use]},
        {"role": "user", "content": [result]},
    ]


def report(benches: list[Bench]) -> None:
    print(
        f"{'tokens':>8}{'messages':>10}{'whole ms':>10}{'warm ms':>9}{'parse':>8}{'render':>8}"
        f"{'lookup':>8}{'whole / warm':>14}"
    )
    for bench in benches:
        times = bench.times
        whole = statistics.median(times.whole)
        parts = [statistics.median(part) for part in (times.parse, times.render, times.lookup)]
        print(
            f"{len(bench.prompt.token_ids):>8}{len(bench.conversation.body['messages']):>10}"
            f"{whole:>10.1f}{times.warm:>9.2f}{parts[0]:>8.2f}{parts[1]:>8.2f}{parts[2]:>8.2f}"
            f"{whole / times.warm:>14.1f}"
        )
    small, large = (bench.times for bench in benches)
    speedup, growth = statistics.median(large.whole) / large.warm, large.warm / small.warm
    print(f"\nwarm at {SIZES[1]:,} tokens over warm at {SIZES[0]:,}: {growth:.2f}")
    if speedup < MIN_SPEEDUP or growth > MAX_GROWTH:
        raise SystemExit(
            f"missed: warm must be at least {MIN_SPEEDUP} times faster than whole at "
            f"{SIZES[1]:,} tokens, and at most {MAX_GROWTH} times what it is at {SIZES[0]:,}"
        )


def main() -> None:
    benches = [Bench(size) for size in SIZES]
    for turn in range(TURNS):
        for bench in benches:
            bench.warm_turn()
            if turn % WHOLE_EVERY == 0:
                bench.whole_turn()
    report(benches)


if __name__ == "__main__":
    main()
