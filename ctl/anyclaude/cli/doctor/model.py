"""Checks of the model and of the memory that it needs."""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

import psutil

from anyclaude.cli.doctor.finding import Examined, Finding, ok, problem, warning
from anyclaude.cli.units import counted, format_bytes
from anyclaude.runtime.blas import REFERENCE_BLAS
from anyclaude.runtime.settings import NEAR_WORKING_SET
from anyclaude.worker.v1 import worker_pb2

_MEGABYTE: Final = 1024**2
_CHOOSE: Final = "anyclaudectl config set model.path FOLDER"
_SMALLER: Final = "Choose a smaller model: anyclaudectl config set model.path FOLDER"


def model(examined: Examined) -> Iterator[Finding]:
    """Whether the model can be loaded, suits Claude Code, and fits into the memory."""
    path = examined.settings.model.path
    if not path:
        yield ok("The embedded demo model. It cannot think; see anyclaudectl model recommend.")
        return
    done = examined.run([sys.executable, "-m", "anyclaude.mlx.check", path])
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        # A file that may not be read is made readable.
        command = re.search(r"`(chmod [^`]+)`", reason)
        fix = command[1] if command else _CHOOSE
        yield problem(reason, "The worker of mode mlx-lm does not start.", fix)
        return
    report = json.loads(done.stdout.strip().splitlines()[-1])
    yield from _fits(report, examined)
    for sentence in report["advice"]:
        yield warning(sentence, "", _CHOOSE)


def _fits(report: dict[str, Any], examined: Examined) -> Iterator[Finding]:
    weights, prompt = report["weights_bytes"], report["kv_bytes_at_claude_code_prompt"]
    total, most = psutil.virtual_memory().total, report["working_set_bytes"]
    needed = weights + prompt
    what = (
        f"The model takes {format_bytes(weights)}, and the KV cache of one Claude Code prompt "
        f"{format_bytes(prompt)}"
    )
    reserve = examined.settings.mlx.memory_reserve_bytes
    if needed + reserve > total:
        yield problem(
            f"{what}. This machine has {format_bytes(total)}.",
            "The worker refuses to load it, since the machine would come to a halt.",
            _SMALLER,
        )
    elif most and needed > NEAR_WORKING_SET * most:
        yield warning(
            f"{what}. Metal recommends at most {format_bytes(most)} for one process.",
            "If macOS compresses the weights, the model runs at a fraction of its speed.",
            f"sudo sysctl iogpu.wired_limit_mb={_wired(needed, total)}",
        )
    else:
        yield ok(f"{what}. This machine has {format_bytes(total)}.")


def _wired(needed: int, total: int) -> int:
    """A limit in MiB that leaves a tenth of it free, and the system at least a tenth of its memory.

    It lasts until the machine restarts.
    """
    return int(min(needed / NEAR_WORKING_SET, total * 0.9)) // _MEGABYTE + 1


def memory(examined: Examined) -> Iterator[Finding]:
    """Whether other programs leave enough memory."""
    if examined.running is None or not examined.running.status.HasField("memory"):
        return
    seen = examined.running.status.memory
    if seen.pressure in (worker_pb2.MEMORY_PRESSURE_WARN, worker_pb2.MEMORY_PRESSURE_CRITICAL):
        yield warning(
            f"This machine is short of memory: {format_bytes(seen.available_bytes)} are available.",
            "Idle caches leave memory for the disk, and answers become slow.",
            "Close other programs, or: anyclaudectl cache prune --tier memory --percent 50 --yes",
        )
    elif seen.refused_requests:
        yield warning(
            f"{counted(seen.refused_requests, 'request')} did not fit into memory since the worker "
            "started.",
            f"{format_bytes(seen.available_bytes)} are available now.",
            "anyclaudectl config set cache.kv_bits 8",
        )
    else:
        yield ok(f"{format_bytes(seen.available_bytes)} of memory are available.")


def blas(examined: Examined) -> Iterator[Finding]:
    """Whether the library with which MLX computes on a CPU is a fast one."""
    name = examined.running.status.blas if examined.running else ""
    if name == REFERENCE_BLAS:
        start = "anyclaudectl service install" if examined.manager.file.exists() else "anyclauded"
        yield warning(
            f"MLX multiplies matrices with the {name} of its wheel, which is slow.",
            'With OpenBLAS, prompts take a fraction of the time; see "A faster BLAS" in '
            "docs/operating.md.",
            "sudo apt-get install libopenblas0 && "
            f"LD_PRELOAD=libopenblas.so.0 OPENBLAS_NUM_THREADS=1 {start}",
        )
    elif name:
        yield ok(f"MLX multiplies matrices with {name}.")
