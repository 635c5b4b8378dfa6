"""`anyclaudectl model pull|use`: the verbs that fetch a model, and that let it answer."""

import json as json_module
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from anyclaude.cli.command import CommandError, ExitCode, ask_if_running, connect, own_paths
from anyclaude.cli.output import Json, note, report
from anyclaude.cli.units import format_bytes

if TYPE_CHECKING:
    from anyclaude.control.v1.control_pb2 import Status, Worker

_KEY: Final = "model.path"
_WORKER: Final = "mlx"
# A large model from a slow disk takes minutes.
_LOAD_SECONDS: Final = 600.0

_Name = Annotated[str, typer.Argument(help="A model folder, or a hub id in the local cache.")]


def pull(
    name: Annotated[str, typer.Argument(help="A model on the hub, such as OWNER/NAME.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Download a model from the Hugging Face hub, and go on where an earlier download ended."""
    import httpx2

    from anyclaude.cli import hub

    try:
        size = format_bytes(hub.missing_bytes(name))
        if not yes:
            typer.confirm(f"Download {size} of {name}?", abort=True, err=True)
        folder = hub.download(name)
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise CommandError(ExitCode.FAILED, _not_downloaded(name, error)) from None
    note("Comparing the files with their checksums ...")
    if damaged := hub.damaged_files(folder):
        files = ", ".join(file.name for file in damaged)
        raise CommandError(
            ExitCode.FAILED,
            f"{files}: removed, since the checksum differs from the hub's. Run the command again.",
        )
    sentence = f"{name} is complete. Use it: `anyclaudectl model use {name}`."
    report({"name": name, "folder": str(folder)}, sentence, json=json)


def _not_downloaded(name: str, error: Exception) -> str:
    why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"{name} was not downloaded: {why} Run the command again: files that have arrived are kept."
    )


def use(
    name: _Name,
    timeout: Annotated[
        float, typer.Option(help="Seconds that each model may take to load.")
    ] = _LOAD_SECONDS,
    json: Json = False,
) -> None:
    """Let another model answer. If it does not load, the one before it answers again."""
    from anyclaude.cli import config_file

    for advice in examine(name)["advice"]:
        note(advice)
    file = own_paths().config_file
    before = ask_if_running(lambda client: client.status())
    old = _configured()
    config_file.change(file, {_KEY: name})
    if before is None:
        sentence = f"{file} names {name}. It is used from the next start of the service on."
        report({"model": name, "loaded": False}, sentence, json=json)
        return
    try:
        _reload(timeout)
    except CommandError as error:
        config_file.change(file, {_KEY: old})
        _roll_back(name, old, error, timeout)
    report({"model": name, "loaded": True}, f"{name} answers now.", json=json)


def _roll_back(name: str, old: str, error: CommandError, timeout: float) -> None:
    """Loads the old model again.

    Raises:
        CommandError: always, with what became of both.
    """
    note(f"{name} does not load; going back to {old or 'the demo model'} ...")
    _reload(timeout)
    raise CommandError(
        error.code, f"{error.message} {old or 'The demo model'} answers again, as before."
    )


def _reload(timeout: float) -> None:
    """Applies the settings, and waits until a later generation of the worker is ready.

    Raises:
        CommandError: the model did not load, or the settings have no effect.
    """
    with connect() as client:
        generation = _worker(client.status()).generation
        answer = client.reload(trial=False)
        if _KEY in answer.pending_keys or _KEY not in answer.changed_keys:
            raise CommandError(
                ExitCode.PRECONDITION,
                "The daemon did not take the new model: its own --model or ANYCLAUDE_MODEL "
                "decides, or it has this model already.",
            )
        for status in client.watch_status(timeout):
            worker = _worker(status)
            if worker.generation > generation and worker.HasField("ready_time"):
                return
            _raise_if_failed(worker, generation)


def _raise_if_failed(worker: "Worker", generation: int) -> None:
    from anyclaude.control.v1 import control_pb2

    states = (control_pb2.WORKER_STATE_FATAL, control_pb2.WORKER_STATE_BACKOFF)
    if worker.generation > generation and worker.state in states:
        raise CommandError(ExitCode.FAILED, f"The model did not load: {worker.last_exit.reason}.")


def _worker(status: "Status") -> "Worker":
    return next(worker for worker in status.workers if worker.name == _WORKER)


def _configured() -> str:
    from anyclaude.runtime.loading import load

    return load(own_paths().config_file, {}).settings.model.path


def examine(path: str) -> dict[str, Any]:
    """Runs the MLX worker's check in another process, so that this command never loads MLX.

    Raises:
        CommandError: NOT_FOUND when there is no usable model.
    """
    command = [sys.executable, "-m", "anyclaude.mlx.check", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(ExitCode.NOT_FOUND, done.stderr.strip().splitlines()[-1])
    found: dict[str, Any] = json_module.loads(done.stdout.strip().splitlines()[-1])
    return found
