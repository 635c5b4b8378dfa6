"""Measures what the cached prefix saves: time to first token, cold and warm, over HTTP.

Everything is measured in one run on one machine, so ratios are comparable across machines.
The bounds are mlx-lm's own `generate_step` on the same token ids in this process.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache

from anyclaude.messages.requests import parse_messages_request
from anyclaude.mlx.model import Model, load
from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.runtime.settings import ModelSettings
from benchmarks.prompts import STABLE_TOKENS, coding_assistant
from benchmarks.service import Service, Timed, running
from tests.models import saved

COLD_RUNS = 3
QUERIES = 10
MAX_NEW_TOKENS = 50
MIN_SPEEDUP = 100
MAX_COLD_OVERHEAD = 1.1
# The model is small because MLX's Linux CPU build multiplies matrices without a tuned BLAS.
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 192,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 32_768,
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = saved.save(Path(folder) / "benchmark", template="qwen3", **SHAPE)
        model = load(ModelSettings(path=str(path)))
        renderer = PromptRenderer(model.new_tokenizer())
        bodies = [coding_assistant(renderer, seed) for seed in range(COLD_RUNS)]
        with running(path) as service:
            service.ask(coding_assistant(renderer, 99) | {"system": "", "tools": []}, "warm-up")
            _bound(model, [1] * 600)
            report(measure(service, model, renderer, bodies))


def measure(
    service: Service, model: Model, renderer: PromptRenderer, bodies: list[dict[str, Any]]
) -> dict[str, Any]:
    """Alternates cold runs with their bound; the last session continues with follow-ups."""
    cold, bound_cold = [], []
    for number, body in enumerate(bodies):
        ids = _ids(renderer, body)
        bound_cold.append(_bound(model, ids))
        cold.append(service.ask(body, f"session-{number}"))
        assert cold[-1].usage["cache_read_input_tokens"] < STABLE_TOKENS / 2
    conversation = bodies[-1]
    answer, warm, bound_warm = cold[-1], [], []
    for turn in range(2, QUERIES + 1):
        conversation = _next(conversation, answer, turn)
        answer = service.ask(conversation, f"session-{COLD_RUNS - 1}")
        warm.append(answer)
        new = answer.usage["input_tokens"] + answer.usage["cache_creation_input_tokens"]
        assert new <= MAX_NEW_TOKENS, f"turn {turn} computed {new} tokens"
        bound_warm.append(new)
    other = service.ask(bodies[-1] | {"messages": [_user("What does the build do?")]}, "other")
    return {
        "cold": cold,
        "bound_cold": bound_cold,
        "warm": warm,
        "bound_warm": _bound_warm(model, _ids(renderer, conversation), max(bound_warm)),
        "other": other,
    }


def report(result: dict[str, Any]) -> None:
    cold = statistics.median(timed.ttft_seconds for timed in result["cold"])
    bound_cold = statistics.median(result["bound_cold"])
    overhead = statistics.median(
        timed.ttft_seconds / bound
        for timed, bound in zip(result["cold"], result["bound_cold"], strict=True)
    )
    warm = statistics.median(timed.ttft_seconds for timed in result["warm"])
    print(f"{'request':<46}{'computed':>9}{'reused':>8}{'ttft s':>9}{'cold / it':>11}")
    for number, timed in enumerate(result["cold"], 1):
        _row(f"cold, prompt {number}", timed, cold)
    for number, timed in enumerate(result["warm"], 2):
        _row(f"follow-up {number}", timed, cold)
    _row("another session, same prefix", result["other"], cold)
    _line("bound: mlx-lm generate_step, cold (median)", bound_cold, cold)
    _line("bound: mlx-lm generate_step, warm (median)", result["bound_warm"], cold)
    total = result["cold"][-1].ttft_seconds + sum(t.ttft_seconds for t in result["warm"])
    print(f"\ncold over its bound (median of {COLD_RUNS} pairs): {overhead:.2f}")
    print(f"speed-up of a follow-up (median of {len(result['warm'])}): {cold / warm:.0f}")
    print(
        f"ten queries: {total:.1f} s to first tokens; without reuse {QUERIES * cold:.1f} s "
        f"({QUERIES * cold / total:.1f} times as long)"
    )
    if cold / warm < MIN_SPEEDUP or overhead > MAX_COLD_OVERHEAD:
        raise SystemExit(
            f"missed: the speed-up must be at least {MIN_SPEEDUP} "
            f"and the overhead at most {MAX_COLD_OVERHEAD}"
        )


def _row(name: str, timed: Timed, cold: float) -> None:
    usage = timed.usage
    computed = usage["input_tokens"] + usage["cache_creation_input_tokens"]
    print(
        f"{name:<46}{computed:>9}{usage['cache_read_input_tokens']:>8}"
        f"{timed.ttft_seconds:>9.3f}{cold / timed.ttft_seconds:>11.1f}"
    )


def _line(name: str, seconds: float, cold: float) -> None:
    print(f"{name:<46}{'':>17}{seconds:>9.3f}{cold / seconds:>11.1f}")


def _next(body: dict[str, Any], answer: Timed, turn: int) -> dict[str, Any]:
    said = {"role": "assistant", "content": answer.content or "ok"}
    return body | {"messages": [*body["messages"], said, _user(f"And number {turn}?")]}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _ids(renderer: PromptRenderer, body: dict[str, Any]) -> list[int]:
    ids = renderer.render(parse_messages_request(json.dumps(body).encode())).token_ids
    return list(map(int, ids))


def _bound(model: Model, ids: list[int]) -> float:
    """Seconds to the first token for a prompt that mlx-lm computes whole."""
    return _first_token(model, ids, make_prompt_cache(model.weights))


def _bound_warm(model: Model, ids: list[int], new_tokens: int) -> float:
    """Median seconds to the first token when all but `new_tokens` are in the cache."""
    cache = make_prompt_cache(model.weights)
    _first_token(model, ids[:-new_tokens], cache)
    times = []
    for _ in range(QUERIES - 1):
        for layer in cache:
            layer.trim(layer.offset - (len(ids) - new_tokens))
        times.append(_first_token(model, ids[-new_tokens:], cache))
    return statistics.median(times)


def _first_token(model: Model, ids: list[int], cache: list[Any]) -> float:
    began = time.perf_counter()
    next(generate_step(mx.array(ids), model.weights, prompt_cache=cache, max_tokens=1))
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
