"""The `anyclaudectl` command: registers the verbs and turns errors into exit codes.

Verbs import gRPC, rich and the settings only when they run, so that `--help` stays fast.
"""

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final, NoReturn

import typer
import typer.core
from typer._click.exceptions import ClickException

from anyclaude.cli.command import CommandError, ExitCode, leave_on_interrupt
from anyclaude.cli.output import emit, note
from anyclaude.cli.verbs import (
    bench,
    bugreport,
    cache,
    completion,
    config,
    doctor,
    env,
    logs,
    metrics,
    mode,
    model,
    reload,
    requests,
    service,
    shutdown,
    status,
    statusline,
    top,
    version,
    wait,
    worker,
)

# The verbs by what they are for, as `--help` lists them.
_SECTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Every day": {
        "status": status.status,
        "mode": mode.mode,
        "requests": requests.requests,
        "top": top.top,
        "cache": cache.app,
        "model": model.app,
        "bench": bench.app,
    },
    "When something is wrong": {
        "doctor": doctor.doctor,
        "logs": logs.logs,
        "worker": worker.app,
        "metrics": metrics.metrics,
        "bugreport": bugreport.bugreport,
    },
    "Set up": {
        "service": service.app,
        "config": config.app,
        "reload": reload.reload,
        "env": env.env,
        "statusline": statusline.statusline,
        "completion": completion.completion,
    },
    "For scripts": {
        "wait": wait.wait,
        "version": version.version,
        "shutdown": shutdown.shutdown,
    },
}


class _Sections(typer.core.TyperGroup):
    """Lists the commands in sections."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str(60)) for name in names]
                )


app = typer.Typer(
    cls=_Sections,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Help is plain text: drawing it would import rich.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verbs in _SECTIONS.values():
    for name, verb in verbs.items():
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=name)
        else:
            app.command(name)(verb)


@app.callback()
def _options(
    version_wanted: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=version.of_the_command, help="Show the version."
        ),
    ] = False,
) -> None:
    """Control the anyclaude service. Exit codes: 0 ok, 1 failed, 2 usage, 3 daemon not running,
    4 not found, 5 precondition, 6 timeout, 7 degraded, 130 interrupted."""


def main() -> NoReturn:
    """Runs one command and exits with its code."""
    leave_on_interrupt()
    completion.prepare()
    wants_json = "--json" in sys.argv
    try:
        # Typer itself ends usage errors, but not as a document. Without its ending, the command's
        # exit code is returned.
        sys.exit(app(prog_name=completion.PROGRAM, standalone_mode=not wants_json) or 0)
    except CommandError as error:
        code, message = int(error.code), error.message
        note(message)
    except ClickException as error:
        code, message = error.exit_code, error.format_message()
        error.show()
    if wants_json:
        emit({"error": {"code": code, "message": message}})
    sys.exit(code)


def run() -> NoReturn:
    """Runs one command and ends the process.

    Python's own end takes 0.05 s after gRPC was imported, to free what the kernel frees anyway.
    """
    code: object = 0
    try:
        try:
            main()
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        # Who read the output has gone, for example `head`.
        code = 1
    os._exit(code if isinstance(code, int) else ExitCode.FAILED)
