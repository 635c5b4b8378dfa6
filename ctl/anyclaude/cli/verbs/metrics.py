"""`anyclaudectl metrics`: the current value of every metric."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.convert import to_dict
from anyclaude.cli.output import Json, emit, table

if TYPE_CHECKING:
    from anyclaude.control.v1.control_pb2 import Metric


def metrics(
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Print Prometheus text exposition format.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the service's metrics."""
    with connect() as client:
        answer = client.metrics()
    if json:
        emit({"metrics": to_dict(answer)["metrics"]})
    elif prometheus:
        sys.stdout.write(answer.text.decode())
    else:
        rows = [(_number(metric.value), _name(metric)) for metric in answer.metrics]
        table(("VALUE", "METRIC"), rows, right=(0,))


def _name(metric: "Metric") -> str:
    labels = ", ".join(f"{key}={metric.labels[key]}" for key in sorted(metric.labels))
    return f"{metric.name}{{{labels}}}" if labels else metric.name


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:.6g}"
