"""`anyclaudectl model check`: how well a model would serve Claude Code."""

import json as json_module
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.cli.output import Cell, Json, Tone, emit, facts, note
from anyclaude.cli.units import format_bytes

app = typer.Typer(help="Examine models.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def model() -> None:
    """Examine models."""
    # Without a callback typer would run `check` as `model` itself.


@app.command("check")
def check(
    path: Annotated[str, typer.Argument(help="A model folder, or a hub id in the local cache.")],
    json: Json = False,
) -> None:
    """Check what works with a model: tools, thinking, window, stable prefixes, memory."""
    report = _examine(path)
    if json:
        emit(report)
        return
    window, at_prompt = report["context_window_tokens"], report["kv_bytes_at_claude_code_prompt"]
    facts(
        [
            ("Model", f"{Path(report['folder']).name} ({report['architecture']})"),
            ("Window", f"{window} tokens"),
            ("Tools", _yes(report["tools"], report["tool_parser"])),
            ("Thinking", "yes" if report["thinking"] else "no"),
            ("Layers", ", ".join(f"{n} {kind}" for kind, n in report["layers"].items())),
            ("Weights", format_bytes(report["weights_bytes"])),
            ("KV cache", f"about {format_bytes(at_prompt)} at Claude Code's 18,490 tokens"),
            ("Tool loop", _stable(report["tool_loop"])),
            ("New question", _stable(report["new_question"])),
        ]
    )
    for advice in report["advice"]:
        note(advice)


def _examine(path: str) -> dict[str, Any]:
    """Runs the MLX worker's check in another process, so that this command never loads MLX."""
    command = [sys.executable, "-m", "anyclaude.mlx.check", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(ExitCode.NOT_FOUND, done.stderr.strip().splitlines()[-1])
    report: dict[str, Any] = json_module.loads(done.stdout.strip().splitlines()[-1])
    return report


def _yes(value: bool, how: str) -> Cell:
    return Cell(f"yes ({how})", Tone.GOOD) if value else Cell("no", Tone.BAD)


def _stable(stability: dict[str, Any]) -> Cell:
    if stability["stable"]:
        return Cell("extends what was computed", Tone.GOOD)
    kept, whole = stability["kept_tokens"], stability["prompt_tokens"]
    return Cell(f"computes {whole - kept} of {whole} tokens again: {stability['why']}", Tone.WARN)
