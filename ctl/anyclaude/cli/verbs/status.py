"""`anyclaudectl status`: whether the service works, and what to do if it does not."""

from typing import TYPE_CHECKING, Final

import typer

from anyclaude.cli.command import ExitCode, connect
from anyclaude.cli.convert import seconds_since, to_dict, word_of
from anyclaude.cli.output import Cell, Json, Row, Tone, emit, facts, table
from anyclaude.cli.running import show_running
from anyclaude.cli.units import counted, format_bytes, format_seconds
from anyclaude.messages.windows import window_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anyclaude.control.v1.control_pb2 import Status, Worker
    from anyclaude.worker.v1.worker_pb2 import DiskStatus, MemoryStatus, ModelInfo

TONES: Final = {
    "ready": Tone.GOOD,
    "starting": Tone.WARN,
    "stopping": Tone.WARN,
    "aborting": Tone.BAD,
    "backoff": Tone.BAD,
    "degraded": Tone.BAD,
    "fatal": Tone.BAD,
}
_LOOSENED_LINES: Final = 5
_HOW_TO_CHOOSE: Final = "demo model; `anyclaudectl model recommend` names real ones"


def status(json: Json = False) -> None:
    """Show whether the service works, and what is wrong. Exit 7 when degraded."""
    from anyclaude.control.v1 import control_pb2

    with connect() as client:
        answer = client.status()
    if json:
        emit(to_dict(answer))
    else:
        _show(answer)
    if answer.readiness == control_pb2.READINESS_DEGRADED:
        raise typer.Exit(ExitCode.DEGRADED)


def _show(answer: "Status") -> None:
    word = word_of(answer, "readiness")
    uptime = format_seconds(seconds_since(answer.start_time))
    facts(
        [
            ("Readiness", Cell(word, TONES.get(word, Tone.PLAIN))),
            ("Mode", answer.mode),
            ("Base URL", answer.base_url),
            ("Model", _model(answer.model)),
            ("Memory", _memory(answer.memory) if answer.HasField("memory") else "-"),
            ("Disk", _disk(answer.disk) if answer.HasField("disk") else "nothing is stored"),
            *([("BLAS", _blas(answer.blas))] if answer.blas else []),
            ("Requests", f"{len(answer.requests) or answer.running_requests} running"),
            ("Daemon", f"{answer.version}, pid {answer.pid}, up {uptime}"),
            ("Home", answer.home),
        ]
    )
    if answer.workers:
        print()
        show_workers(answer.workers)
    if answer.requests:
        print()
        show_running(answer.requests)
    if answer.loosened_schemas:
        print()
        facts([("Loosened", line) for line in _loosened(answer.loosened_schemas)])
    if answer.notices:
        print()
        facts([("Notice", notice) for notice in answer.notices])
    if answer.problems:
        print()
        facts([("Problem", Cell(problem, Tone.BAD)) for problem in answer.problems])


def _loosened(lines: "Sequence[str]") -> list[str]:
    """What is not enforced of schemas; a few lines, since a large MCP server causes hundreds."""
    left = len(lines) - _LOOSENED_LINES
    more = [f"and {left} more: anyclaudectl status --json"] if left > 0 else []
    return [*lines[:_LOOSENED_LINES], *more]


def show_workers(workers: "Iterable[Worker]") -> None:
    """Prints the table of workers; `worker list` uses it too."""
    table(
        ("WORKER", "STATE", "PID", "UP", "RESTARTS", "LAST EXIT"),
        [_row(worker) for worker in workers],
        right=(2, 3, 4),
    )


def _row(worker: "Worker") -> Row:
    word = word_of(worker, "state")
    state = f"{word} (stop-first)" if worker.makes_room_for else word
    up = worker.HasField("ready_time") and word == "ready"
    return (
        worker.name,
        Cell(state, TONES.get(word, Tone.DIM)),
        str(worker.pid or "-"),
        format_seconds(seconds_since(worker.ready_time)) if up else "-",
        str(worker.restart_count),
        _last_exit(worker),
    )


def _last_exit(worker: "Worker") -> str:
    if not worker.HasField("last_exit"):
        return "-"
    last = worker.last_exit
    how = last.signal or (f"code {last.code}" if last.HasField("code") else "")
    return ": ".join(part for part in (how, last.reason) if part) or "-"


def _model(model: "ModelInfo") -> str | Cell:
    if not model.id:
        return "-"
    window = f"window {model.context_window_tokens} tokens"
    if model.is_demo:
        return Cell(f"{model.id}, {window} ({_HOW_TO_CHOOSE})", Tone.WARN)
    if problem := window_problem(model.context_window_tokens):
        return Cell(f"{model.id}. {problem}", Tone.WARN)
    return f"{model.id}, {window}"


def _blas(name: str) -> str | Cell:
    from anyclaude.runtime.blas import REFERENCE_BLAS

    is_slow = name == REFERENCE_BLAS
    return Cell(f"{name}: see `anyclaudectl doctor`", Tone.WARN) if is_slow else name


def _disk(disk: "DiskStatus") -> str:
    unusual = (
        (disk.other_version_records, "of an unsupported version"),
        (disk.quarantined_records, "in quarantine"),
        (disk.failed_writes + disk.skipped_writes, "not written"),
    )
    words = [
        f"{format_bytes(disk.bytes)} of {format_bytes(disk.budget_bytes)}",
        f"{counted(disk.records, 'segment')} of this model",
        *(f"{records} {what}" for records, what in unusual if records),
    ]
    return ", ".join(words)


def _memory(memory: "MemoryStatus") -> str:
    limit = format_bytes(memory.cache_limit_bytes) if memory.cache_limit_bytes else "no limit"
    words = [
        f"{format_bytes(memory.active_bytes)} active",
        f"weights {format_bytes(memory.weights_bytes)}",
        f"caches {format_bytes(memory.cache_bytes)} of {limit}",
        f"{format_bytes(memory.available_bytes)} available",
    ]
    if memory.refused_requests:
        words.append(f"{counted(memory.refused_requests, 'request')} refused for lack of memory")
    return ", ".join(words)
