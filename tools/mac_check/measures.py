"""Sections that measure a running service: memory, speed, the caches' exactness, sleep and wake."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from tools.mac_check import mlx_side, requests
from tools.mac_check.launchd import Streaming
from tools.mac_check.machine import memory_rows
from tools.mac_check.report import Row, SkippedError, gigabytes, scalars, table
from tools.mac_check.service import Commands, Timed, running, send, timed

_SLEEP_TOKENS: Final = 8_000


def memory_section(model: Path | None) -> list[str]:
    """Every source's figures side by side, before the service runs and while it does."""
    before = dict(memory_rows())
    with running(model) as commands:
        send(commands.status()["base_url"], requests.long_prompt())
        during = dict(memory_rows())
        status = commands.status()
        worker = worker_rows(status)
    rows: list[Row] = [
        (name, f"{gigabytes(_number(before[name]))} → {gigabytes(_number(value))}")
        for name, value in during.items()
        if name in before
    ]
    rows += [
        (f"anyclaude {name}", gigabytes(_number(value)) if name.endswith("_bytes") else value)
        for name, value in scalars(status["memory"])
    ]
    return table(("Source", "Before → with the service"), rows + worker)


def worker_rows(status: dict[str, Any]) -> list[Row]:
    """The MLX worker as the operating system counts it."""
    pid = next(worker["pid"] for worker in status["workers"] if worker["name"] == "mlx")
    counted = psutil.Process(pid).memory_info()
    return [
        ("worker rss (psutil)", gigabytes(counted.rss)),
        ("worker vms (psutil)", gigabytes(counted.vms)),
    ]


def speed_section(model: Path | None, model_path: Path) -> list[str]:
    """mlx-lm by itself, then the service with the same model."""
    alone = mlx_side.measure(model_path)
    with running(model) as commands:
        # The first answer of each kind compiles kernels and grammars.
        for body in (requests.free_answer(16), requests.tool_call(16)):
            timed(commands, body)
        prompt = timed(commands, requests.long_prompt())
        free = timed(commands, requests.free_answer())
        call = timed(commands, requests.tool_call())
    rows = alone_rows(alone) + service_rows(alone, prompt, free, call)
    return table(("What", "Figure"), rows)


def alone_rows(alone: dict[str, Any]) -> list[Row]:
    """mlx-lm's own figures."""
    rows: list[Row] = [
        (f"mlx-lm: prefill at {chunk} tokens per chunk, tokens/s", figure)
        for chunk, figure in alone["prefill_tokens_per_second"].items()
    ]
    rows += [(f"mlx-lm: {name}", gigabytes(value)) for name, value in alone["memory"].items()]
    name = f"mlx-lm: decode of {alone['decode_tokens']} tokens, tokens/s"
    return [*rows, (name, alone["decode_tokens_per_second"])]


def service_rows(alone: dict[str, Any], prompt: Timed, free: Timed, call: Timed) -> list[Row]:
    """The service's figures, decoding as a share of mlx-lm's speed."""
    rows: list[Row] = [
        (f"anyclaude: prefill of {prompt.computed_tokens} tokens, tokens/s", prompt.prefill_rate),
        ("anyclaude: time to the first token of that prompt, s", prompt.first_token_seconds),
    ]
    for name, one in (("free answer", free), ("constrained tool call", call)):
        share = one.decode_rate / alone["decode_tokens_per_second"]
        tokens = one.answer.output_tokens
        rows += [
            (f"anyclaude: {name} of {tokens} tokens, tokens/s", one.decode_rate),
            (f"anyclaude: {name} against mlx-lm", share),
        ]
    return rows


def verify_section(model: Path | None) -> list[str]:
    """Fills the caches with two requests, then compares them with a second computation."""
    with running(model) as commands:
        url = commands.status()["base_url"]
        send(url, requests.long_prompt())
        send(url, requests.free_answer())
        return table(("`cache verify`", "Figure"), verify_rows(commands))


def verify_rows(commands: Commands) -> list[Row]:
    found = json.loads(commands.ctl("cache", "verify", "--json"))
    return scalars(found)


@dataclass(frozen=True)
class Moment:
    """Two clocks at one moment: the difference of their progress is time asleep on macOS."""

    wall: float
    monotonic: float

    @classmethod
    def now(cls) -> "Moment":
        return cls(time.time(), time.monotonic())

    def asleep_seconds(self, later: "Moment") -> float:
        return (later.wall - self.wall) - (later.monotonic - self.monotonic)


def sleep_section(
    model: Path | None, *, may_ask: bool, ask: Callable[[str], str] = input
) -> list[str]:
    """Asks the person to put the Mac to sleep while an answer streams."""
    if not may_ask:
        raise SkippedError("It needs a person at a terminal, and no `--no-sleep`.")
    with running(model) as commands:
        url = commands.status()["base_url"]
        answer = Streaming(url, _SLEEP_TOKENS)
        answer.wait_until_running(commands)
        before = Moment.now()
        print(
            "Sleep check: choose Apple menu > Sleep now, wait a minute, wake the Mac,"
            " then press Enter here.",
            file=sys.stderr,
        )
        ask("")
        asleep = before.asleep_seconds(Moment.now())
        ended = answer.result()
        after = timed(commands, requests.free_answer(16))
        restarts = sum(worker["restart_count"] for worker in commands.status()["workers"])
    return table(
        ("Sleep and wake", "Result"),
        [
            ("seconds asleep by the clocks", round(asleep, 1)),
            ("the answer that streamed", ended),
            ("a request after it", after.answer.ended),
            ("its time to the first token, s", after.first_token_seconds),
            ("restarts of workers", restarts),
            *assertions(),
        ],
    )


def assertions() -> list[Row]:
    """What keeps the Mac awake, by `pmset`, where there is one."""
    try:
        done = subprocess.run(
            ["pmset", "-g", "assertions"], capture_output=True, text=True, timeout=30, check=False
        )
    except OSError:
        return []
    ours = [line.strip() for line in done.stdout.splitlines() if "caffeinate" in line]
    return [("assertions of caffeinate", len(ours))]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
