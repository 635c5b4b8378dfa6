"""`anyclaudectl metrics`: the current value of every metric."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.convert import to_dict
from anyclaude.cli.output import Json, emit, report, table

if TYPE_CHECKING:
    from anyclaude.control.v1.control_pb2 import Metric


def metrics(
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Print Prometheus text exposition format.")
    ] = False,
    session: Annotated[
        str, typer.Option(metavar="ID", help="What this session of Claude Code asked and saved.")
    ] = "",
    json: Json = False,
) -> None:
    """Show the service's metrics, or those of one session."""
    if session:
        _show_session(session, json=json)
        return
    with connect() as client:
        answer = client.metrics()
    if json:
        emit({"metrics": to_dict(answer)["metrics"]})
    elif prometheus:
        sys.stdout.write(answer.text.decode())
    else:
        rows = [(_number(metric.value), _name(metric)) for metric in answer.metrics]
        table(("VALUE", "METRIC"), rows, right=(0,))


def _show_session(session: str, *, json: bool) -> None:
    from anyclaude.cli.session import metrics_of

    with connect() as client:
        found = metrics_of(client.requests_of(session_id=session))
    report(asdict(found), "\n".join(found.sentences()), json=json)


def _name(metric: "Metric") -> str:
    labels = ", ".join(f"{key}={metric.labels[key]}" for key in sorted(metric.labels))
    return f"{metric.name}{{{labels}}}" if labels else metric.name


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:.6g}"
