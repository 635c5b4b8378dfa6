"""Measures all servers in alternation and writes docs/performance.md.

    python -m benchmarks.rivals [--write docs/performance.md] [--short | --full] [--only NAME,NAME]

`tests/upstreams/install` installs the other servers first. One that does not start, or fails in
a round, is named on the page with its reason, and the others go on.
"""

import argparse
import datetime
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from anyclaude.cli.bench.endpoint import EndpointError
from anyclaude.cli.bench.workload import Workload
from benchmarks.rivals.contestants import (
    Contestant,
    blas_environment,
    contestants,
    load_average,
)
from benchmarks.rivals.page import Run, write
from benchmarks.rivals.rounds import Results, Round, Setting
from tests.models import saved

WINDOW_TOKENS: Final = 32_768
_TINY: Final[dict[str, Any]] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 192,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
_EIGHT_LAYERS: Final[dict[str, Any]] = {
    "hidden_size": 384,
    "num_hidden_layers": 8,
    "intermediate_size": 1024,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
SETTINGS: Final = (
    Setting("2 layers of 64", _TINY, 4_000, 3, 128, 1_500),
    Setting("8 layers of 384", _EIGHT_LAYERS, 1_000, 3, 48, 150),
    Setting("2 layers of 64, a prompt of Claude Code's size", _TINY, 18_490, 2, 128, 4_000),
)
# The longest reason that the page shows.
_REASON_CHARACTERS: Final = 200
_FAILURES: Final = (EndpointError, AssertionError, RuntimeError, OSError)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path)
    parser.add_argument("--short", action="store_true", help="one small round of the small model")
    parser.add_argument("--full", action="store_true", help="all sizes, five rounds, no time limit")
    parser.add_argument("--minutes", type=float, default=10.0, help="no new round begins later")
    parser.add_argument("--only", default="", help="names of servers, separated by commas")
    given = parser.parse_args()
    # Every server's MLX uses the same BLAS; their processes inherit it.
    os.environ.update(blas_environment())
    load, versions, measured = load_average(), dict[str, str](), []
    only = [name for name in given.only.split(",") if name]
    settings = _settings(short=given.short, full=given.full)
    seconds = math.inf if given.full else given.minutes * 60 / len(settings)
    for setting in settings:
        print(f"\n{setting.name}, {setting.tokens:,} tokens", flush=True)
        measured.append((setting, _measure(setting, only, versions, seconds)))
    if given.write:
        write(given.write, _run(load, versions), measured)


def _settings(*, short: bool, full: bool) -> Sequence[Setting]:
    if short:
        return [replace(SETTINGS[0], tokens=500, rounds=1, decode_tokens=32, mixed_tokens=200)]
    return [replace(one, rounds=5) for one in SETTINGS] if full else SETTINGS[:2]


def _measure(
    setting: Setting, only: Sequence[str], versions: dict[str, str], seconds: float
) -> Results:
    """The results of as many rounds as begin within the time, but of one at least."""
    results, deadline = Results(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(Path(folder) / "model", setting)
        running: list[Contestant] = []
        try:
            for name, make in contestants(model, Path(folder) / "model.gguf").items():
                if only and name not in only:
                    continue
                versions.setdefault(name, "did not start")
                if contestant := _started(name, make, results):
                    versions[name] = contestant.version
                    running.append(contestant)
            _rounds(setting, running, results, deadline)
        finally:
            for contestant in running:
                contestant.close()
    return results


def save_model(folder: Path, setting: Setting) -> Path:
    """A model with random weights whose answers never end by themselves."""
    return saved.save(
        folder,
        template="chatml",
        endless=True,
        max_position_embeddings=WINDOW_TOKENS,
        **setting.shape,
    )


def _started(name: str, make: Any, results: Results) -> Contestant | None:
    """None if it does not start; the page then says why."""
    contestant: Contestant | None = None
    try:
        contestant = make()
        contestant.start()
    except (*_FAILURES, LookupError) as error:
        if contestant is not None:
            contestant.close()
        _fail(results, name, error)
        return None
    return contestant


def _rounds(
    setting: Setting, running: Sequence[Contestant], results: Results, deadline: float
) -> None:
    workload = Workload()
    for contestant in running:
        _warm_up(contestant, workload)
    for number in range(1, setting.rounds + 1):
        if number > 1 and time.monotonic() > deadline:
            print("  no time for more rounds; see --minutes", flush=True)
            return
        # Each round begins with another server, so that none always follows the same one.
        shift = (number - 1) % max(1, len(running))
        for contestant in (*running[shift:], *running[:shift]):
            print(f"  round {number} of {setting.rounds}: {contestant.name}", flush=True)
            try:
                Round(contestant, setting, workload, results).run()
            except _FAILURES as error:
                _fail(results, contestant.name, error)
                _start_again(contestant, results)


def _start_again(contestant: Contestant, results: Results) -> None:
    """After a failure, which may have left it hanging."""
    try:
        contestant.kill()
        contestant.start()
    except _FAILURES as error:
        _fail(results, contestant.name, error)


def _warm_up(contestant: Contestant, workload: Workload) -> None:
    """A first answer, which also counts the tokens of the words where the server tells them."""
    try:
        with contestant.endpoint() as endpoint:
            bare = endpoint.ask(workload.start(""), 8)
            probe = endpoint.ask(workload.probe(), 8)
    except _FAILURES as error:
        print(f"  {contestant.name}: {error}", file=sys.stderr)
        return
    workload.calibrate(probe.prompt_tokens, bare.prompt_tokens)


def _fail(results: Results, name: str, error: BaseException) -> None:
    reason = " ".join(str(error).replace("`", "'").split()) or type(error).__name__
    print(f"  {name} failed: {reason[-2000:]}", file=sys.stderr, flush=True)
    results.failures.setdefault(name, []).append(reason[:_REASON_CHARACTERS])


def _run(load: float, versions: dict[str, str]) -> Run:
    blas = "OpenBLAS with one thread" if blas_environment() else "The BLAS of MLX's wheel"
    return Run(
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        date=datetime.date.today().isoformat(),
        blas=f"{blas} multiplies for every MLX server; llama-server has its own kernels.",
        load=(load, load_average()),
        versions=versions,
    )


if __name__ == "__main__":
    main()
