"""The `anyclaudectl` command: registers the verbs and turns errors into exit codes.

Verbs import gRPC, rich and the settings only when they run, so that `--help` stays fast.
"""

import sys
from typing import NoReturn

import typer

from anyclaude.cli.command import CommandError, leave_on_interrupt
from anyclaude.cli.output import note
from anyclaude.cli.verbs import (
    bugreport,
    cache,
    config,
    doctor,
    env,
    logs,
    metrics,
    mode,
    model,
    requests,
    service,
    shutdown,
    status,
    version,
    wait,
    worker,
)

app = typer.Typer(
    help="Control the anyclaude service. Exit codes: 0 ok, 1 failed, 2 usage, "
    "3 daemon not running, 4 not found, 5 precondition, 6 timeout, 7 degraded, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Help is plain text: drawing it would import rich.
    rich_markup_mode=None,
)
app.command("status")(status.status)
app.command("mode")(mode.mode)
app.add_typer(cache.app, name="cache")
app.command("metrics")(metrics.metrics)
app.command("requests")(requests.requests)
app.add_typer(worker.app, name="worker")
app.add_typer(model.app, name="model")
app.command("logs")(logs.logs)
app.command("wait")(wait.wait)
app.add_typer(config.app, name="config")
app.command("doctor")(doctor.doctor)
app.command("bugreport")(bugreport.bugreport)
app.command("env")(env.env)
app.add_typer(service.app, name="service")
app.command("version")(version.version)
app.command("shutdown")(shutdown.shutdown)


def main() -> NoReturn:
    """Runs one command and ends the process with its exit code."""
    leave_on_interrupt()
    try:
        app(prog_name="anyclaudectl")
    except CommandError as error:
        note(error.message)
        sys.exit(error.code)
    sys.exit(0)
