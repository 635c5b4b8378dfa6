"""Measures a restart after SIGKILL: a prefix of Claude Code's size is read back from disk.

Worker and daemon get SIGKILL once the prefix is stored. Then another conversation sends a request
with the same tools and instructions: once with warming off, so that the request itself reads them
from disk, and once with warming on, so that they are in memory before. The request is sent as soon
as `anyclaudectl wait --ready` returns; the time from start to ready is shown as well.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyclaude.mlx.model import load
from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.runtime.settings import ModelSettings
from benchmarks.prefix_cache import SHAPE
from benchmarks.prompts import STABLE_TOKENS, coding_assistant
from benchmarks.service import Service as Client
from benchmarks.service import Timed
from tests.integration.service import Service
from tests.models import saved

MIN_REUSED_PART: Final = 0.99
MIN_SPEEDUP: Final = 50
STORED_WITHIN_SECONDS: Final = 120


@dataclass(frozen=True)
class Asked:
    """One request to a service that just became ready, and where its tokens were found."""

    ready_seconds: float
    # Tokens in the prefix tree before the request.
    memory_tokens: int
    timed: Timed
    explained: dict[str, Any]

    def tokens(self, found: str) -> int:
        """The tokens that came from `found`: live, memory or disk; or that were computed."""
        return int(self.explained.get(found, 0))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = saved.save(Path(folder) / "benchmark", template="qwen3", **SHAPE)
        renderer = PromptRenderer(load(ModelSettings(path=str(path))).new_tokenizer())
        body = coding_assistant(renderer, 0)
        other = body | {"messages": [{"role": "user", "content": "What does the build do?"}]}
        home = Path(tempfile.mkdtemp(prefix="acb-", dir="/tmp"))
        try:
            cold = _ask(path, home, body, "first", warm=False, keep=True)
            report(
                cold,
                _ask(path, home, other, "second", warm=False, keep=False),
                _ask(path, home, other, "third", warm=True, keep=False),
            )
        finally:
            shutil.rmtree(home)


def report(cold: Asked, from_disk: Asked, warmed: Asked) -> None:
    print(
        f"{'request':<36}{'ready s':>9}{'in memory':>11}{'disk':>8}{'memory':>8}"
        f"{'computed':>10}{'ttft s':>9}{'cold / it':>11}"
    )
    for name, asked in (
        ("cold", cold),
        ("after SIGKILL, warming off", from_disk),
        ("after SIGKILL, warming on", warmed),
    ):
        ttft = asked.timed.ttft_seconds
        print(
            f"{name:<36}{asked.ready_seconds:>9.2f}{asked.memory_tokens:>11}"
            f"{asked.tokens('reused_disk_tokens'):>8}{asked.tokens('reused_memory_tokens'):>8}"
            f"{asked.tokens('computed_tokens'):>10}{ttft:>9.3f}"
            f"{cold.timed.ttft_seconds / ttft:>11.1f}"
        )
    needed = MIN_REUSED_PART * STABLE_TOKENS
    speedup = cold.timed.ttft_seconds / from_disk.timed.ttft_seconds
    if from_disk.memory_tokens or from_disk.tokens("reused_disk_tokens") < needed:
        raise SystemExit(f"missed: at least {needed:.0f} tokens must come from disk")
    if speedup < MIN_SPEEDUP:
        raise SystemExit(f"missed: {speedup:.0f} times as fast; it must be {MIN_SPEEDUP}")
    if warmed.memory_tokens < needed or warmed.tokens("reused_memory_tokens") < needed:
        raise SystemExit(f"missed: {needed:.0f} tokens must be in memory before the first request")


def _ask(
    model: Path, home: Path, body: dict[str, Any], session: str, *, warm: bool, keep: bool
) -> Asked:
    """Starts the service, sends a request, and kills it all; with `keep`, after all is stored."""
    with _killed(model, home, warm=warm) as (service, ready_seconds):
        memory_tokens = sum(int(part["tokens"]) for part in _tree(service) if part["bytes"])
        timed = Client(service.base_url).ask(body, session)
        newest = service.control("requests", "--json").json["requests"][0]["request_id"]
        explained = service.control("cache", "explain", newest, "--json").json["explanation"]
        if keep:
            _wait_stored(service)
        return Asked(ready_seconds, memory_tokens, timed, explained)


@contextlib.contextmanager
def _killed(model: Path, home: Path, *, warm: bool) -> Iterator[tuple[Service, float]]:
    began = time.perf_counter()
    with Service(model=model, home=home, ANYCLAUDE__CACHE__WARM_AT_START=str(warm)) as service:
        service.ready()
        yield service, time.perf_counter() - began
        for child in service.children():
            child.kill()
        service.process.kill()
        service.process.wait()


def _tree(service: Service) -> list[dict[str, Any]]:
    segments: list[dict[str, Any]] = service.control("cache", "tree", "--json").json["segments"]
    return segments


def _wait_stored(service: Service) -> None:
    end = time.monotonic() + STORED_WITHIN_SECONDS
    while time.monotonic() < end:
        if all(part["on_disk"] for part in _tree(service)):
            return
        time.sleep(0.2)
    raise RuntimeError(f"not all segments were on disk within {STORED_WITHIN_SECONDS} s")


if __name__ == "__main__":
    main()
