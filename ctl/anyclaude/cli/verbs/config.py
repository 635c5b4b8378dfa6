"""`anyclaudectl config show|path|check|set`: the effective settings and where each comes from."""

import json as json_module
import os
from typing import Annotated, Any

import typer

from anyclaude.cli.command import CommandError, ExitCode, ask_if_running, own_paths
from anyclaude.cli.output import Cell, Json, Tone, emit, note, report, table

app = typer.Typer(help="Show, check and change the settings.")


@app.callback(invoke_without_command=True)
def config(context: typer.Context, json: Json = False) -> None:
    """Show, check and change the settings. Without a verb: show."""
    if context.invoked_subcommand is None:
        show(json=json)


@app.command("show")
def show(json: Json = False) -> None:
    """Show every setting and where it comes from, as the running daemon uses it."""
    document = _from_daemon() or _from_files()
    if json:
        emit(document)
        return
    running = document["source"] == "daemon"
    where = "as the running daemon uses them" if running else "from the files; no daemon is running"
    note(f"Settings {where}. File: {document['file']}")
    table(
        ("ORIGIN", "KEY", "VALUE"),
        [
            (
                Cell(entry["origin"], Tone.DIM if entry["origin"] == "default" else Tone.GOOD),
                entry["key"],
                json_module.dumps(entry["value"]),
            )
            for entry in document["entries"]
        ],
    )


@app.command("path")
def path(json: Json = False) -> None:
    """Print where the configuration file is."""
    file = own_paths().config_file
    report({"file": str(file), "exists": file.exists()}, str(file), json=json)


@app.command("check")
def check(json: Json = False) -> None:
    """Find what the daemon would refuse, and what of this shell has no effect. Exit 1: a problem.

    `doctor` checks more: the model, the port, the files.
    """
    from anyclaude.cli.doctor import settings
    from anyclaude.cli.doctor.checks import examine
    from anyclaude.cli.doctor.finding import Level

    examined = examine()
    checks = (settings.settings, settings.variables, settings.hidden, settings.folders)
    found = [each for one in checks for each in one(examined)]
    problems = [each.what for each in found if each.level is Level.PROBLEM]
    warnings = [f"{each.what} {each.why}".rstrip() for each in found if each.level is Level.WARNING]
    file = examined.paths.config_file
    if json:
        emit(
            {
                "file": str(file),
                "valid": not problems,
                "problems": problems,
                "warnings": warnings,
            }
        )
    else:
        for sentence in [*problems, *warnings]:
            note(sentence)
        if not problems:
            print(f"{file}: ok" if file.exists() else f"{file}: does not exist, defaults apply")
    if problems:
        raise typer.Exit(ExitCode.FAILED)


@app.command("set")
def set_value(
    key: Annotated[str, typer.Argument(help="As `config show` prints it.")],
    value: Annotated[str, typer.Argument(help="A TOML value, or plain text.")],
    json: Json = False,
) -> None:
    """Write one setting into the configuration file; its comments and order stay."""
    from anyclaude.cli import config_file

    file = own_paths().config_file
    new = config_file.typed(file, key, value)
    changed = bool(config_file.change(file, {key: new}))
    words = f"{key} = {config_file.as_toml(new)}"
    sentence = f"{file}: {words}" if changed else f"{file} has {words} already."
    report({"file": str(file), "key": key, "value": new, "changed": changed}, sentence, json=json)


def _from_daemon() -> dict[str, Any] | None:
    answer = ask_if_running(lambda client: client.config())
    if answer is None:
        return None
    entries = [
        {"key": entry.key, "value": json_module.loads(entry.value_json), "origin": entry.origin}
        for entry in answer.entries
    ]
    return {"source": "daemon", "file": answer.file, "entries": entries}


def _from_files() -> dict[str, Any]:
    from anyclaude.runtime.loading import SettingsError, load

    file = own_paths().config_file
    try:
        loaded = load(file, os.environ)
    except SettingsError as error:
        raise CommandError(ExitCode.FAILED, str(error)) from None
    entries = [
        {"key": key, "value": value, "origin": str(origin)}
        for key, value, origin in loaded.entries()
    ]
    return {"source": "files", "file": str(file), "entries": entries}
