"""`anyclaudectl model list|pull|use|check|recommend`: the model that answers."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from anyclaude.cli.command import own_paths
from anyclaude.cli.output import Cell, Json, Row, Tone, emit, facts, note, table
from anyclaude.cli.units import format_bytes
from anyclaude.cli.verbs.model_change import examine, pull, use

app = typer.Typer(help="Find, download, examine and choose models.", no_args_is_help=True)


app.command("pull")(pull)
app.command("use")(use)


@app.command("check")
def check(
    path: Annotated[str, typer.Argument(help="A model folder, or a hub id in the local cache.")],
    json: Json = False,
) -> None:
    """Check what works with a model: tools, thinking, window, stable prefixes, memory."""
    report = examine(path)
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


@app.command("list")
def list_models(json: Json = False) -> None:
    """List the models in the local hub cache, and those beside the configured one."""
    from anyclaude.cli.hub import local_models

    configured = Path(_configured()).expanduser()
    found = local_models((configured.parent,) if configured.is_absolute() else ())
    if json:
        emit({"models": [each.document() for each in found]})
        return
    if not found:
        note("There are no models yet. `anyclaudectl model recommend` names some that fit.")
        return
    rows: list[Row] = [
        (
            format_bytes(each.nbytes),
            f"{each.window_tokens:,}" if each.window_tokens else "-",
            each.model_type,
            Cell(each.state, Tone.GOOD if each.state == "ok" else Tone.BAD),
            each.name,
        )
        for each in found
    ]
    table(("SIZE", "WINDOW", "FAMILY", "STATE", "NAME"), rows, right=(0, 1))


@app.command("recommend")
def recommend(json: Json = False) -> None:
    """Name models that serve Claude Code well and fit into this machine's memory."""
    import psutil

    from anyclaude.cli.recommended import fitting

    memory_bytes = psutil.virtual_memory().total
    found = list(fitting(memory_bytes))
    if json:
        emit({"memory_bytes": memory_bytes, "models": [asdict(each) for each in found]})
        return
    if not found:
        note(f"No model that serves Claude Code fits into {format_bytes(memory_bytes)} of memory.")
        return
    for each in found:
        about = f"{each.name}: {format_bytes(each.weights_bytes)}, {each.good_for}."
        print(f"{about} {each.trap}".rstrip())
    note(f"Download one: `anyclaudectl model pull {found[0].name}`.")


def _configured() -> str:
    """The model that the settings name; empty for the demo model."""
    from anyclaude.runtime.loading import load

    return load(own_paths().config_file, os.environ).settings.model.path


def _yes(value: bool, how: str) -> Cell:
    return Cell(f"yes ({how})", Tone.GOOD) if value else Cell("no", Tone.BAD)


def _stable(stability: dict[str, Any]) -> Cell:
    if stability["stable"]:
        return Cell("extends what was computed", Tone.GOOD)
    kept, whole = stability["kept_tokens"], stability["prompt_tokens"]
    return Cell(f"computes {whole - kept} of {whole} tokens again: {stability['why']}", Tone.WARN)
