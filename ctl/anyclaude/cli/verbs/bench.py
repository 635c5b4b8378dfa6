"""`anyclaudectl bench`: measures what a cache saves, here or at any other address."""

import contextlib
import platform
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.cli.output import Cell, Json, Row, Tone, emit, note, table

if TYPE_CHECKING:
    from anyclaude.cli.bench.figures import Change, Report
    from anyclaude.cli.bench.target import Target
    from anyclaude.cli.bench.trials import Sizes

_TONES: Final = {"better": Tone.GOOD, "worse": Tone.BAD}

app = typer.Typer(help="Measure first tokens with and without a cache.")


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="Another server; without it the running service.")
    ] = "",
    api_key: Annotated[
        str, typer.Option(envvar="ANYCLAUDE_BENCH_API_KEY", help="The key of that server.")
    ] = "",
    model: Annotated[str, typer.Option(help="The model's name at that server.")] = "",
    openai: Annotated[
        bool, typer.Option("--openai", help="Ask by chat completions, not by the Messages API.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="18,490 tokens, up to 128,000 of context, 200 queries.")
    ] = False,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the instructions; by default 2,000.")
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Sessions, and prompts of each size; by default 5.")
    ] = None,
    contexts: Annotated[
        str | None,
        typer.Option(metavar="N,N", help='Prompt sizes of test 3; by default 1000,4000; "" skips.'),
    ] = None,
    memory_queries: Annotated[
        int | None, typer.Option(min=0, help="Queries of test 4; by default 40; 0 skips it.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the times to the first token.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure the time to the first token: sessions, growth, context sizes, memory."""
    if context.invoked_subcommand:
        return
    from anyclaude.cli.bench.endpoint import EndpointError
    from anyclaude.cli.bench.summary import picture as draw
    from anyclaude.cli.bench.target import other_server, own_service

    sizes = _sizes(full, tokens, runs, contexts, memory_queries)
    if not base_url and (api_key or model):
        raise typer.BadParameter("--api-key and --model belong to --base-url")
    opened = other_server(base_url, api_key, model, openai) if base_url else own_service(openai)
    try:
        with opened as target:
            report = _measure(target, sizes)
    except EndpointError as error:
        raise CommandError(ExitCode.FAILED, _failed(error, base_url)) from None
    if picture:
        picture.write_text(draw(report))
    if json:
        emit(report.document())
    else:
        _show(report)


@app.command("compare")
def compare(
    before: Annotated[Path, typer.Argument(help="What `bench --json` printed.")],
    after: Annotated[Path, typer.Argument(help="What a later `bench --json` printed.")],
    json: Json = False,
) -> None:
    """Compare two runs: the ratio of each median, and whether it is more than noise."""
    from anyclaude.cli.bench import figures

    try:
        changes = figures.compare(figures.load(before), figures.load(after))
    except (OSError, ValueError) as error:
        raise CommandError(ExitCode.FAILED, str(error)) from None
    if json:
        rows = [
            {
                "test": change.before.test,
                "name": change.before.name,
                "before": change.before.median,
                "after": change.after.median,
                "ratio": change.ratio,
                "verdict": change.verdict,
            }
            for change in changes
        ]
        emit({"changes": rows})
        return
    table(
        ("TEST", "ROW", "BEFORE", "AFTER", "RATIO", ""),
        [_change(change) for change in changes],
        right=(2, 3, 4),
    )


def _sizes(
    full: bool,
    tokens: int | None,
    runs: int | None,
    contexts: str | None,
    memory_queries: int | None,
) -> "Sizes":
    """The default or full sizes, changed by the options that are given."""
    from dataclasses import replace

    from anyclaude.cli.bench.trials import FULL, Sizes

    numbers = {"tokens": tokens, "runs": runs, "memory_queries": memory_queries}
    changes: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    if contexts is not None:
        changes["context_tokens"] = _numbers(contexts)
    return replace(FULL if full else Sizes(), **changes)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        numbers = (0,)
    if any(number < 1 for number in numbers):
        raise typer.BadParameter(f"--contexts {text!r}: write numbers of tokens, e.g. 1000,4000")
    return numbers


def _measure(target: "Target", sizes: "Sizes") -> "Report":
    import psutil

    from anyclaude.cli.bench.figures import Report
    from anyclaude.cli.bench.trials import Trials
    from anyclaude.cli.bench.workload import Workload

    sizes, left_out = sizes.within(target.window_tokens)
    for size in left_out:
        note(f"Left out: {size:,} tokens do not fit into the window of {target.model}.")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with _progress(sizes.requests) as advance:
        rows = Trials(target.endpoint, Workload(), sizes, target.insight, advance).run()
    machine = f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} cores"
    return Report(target.base_url, target.model, machine, started, rows)


@contextlib.contextmanager
def _progress(requests: int) -> Iterator[Callable[[str], None]]:
    """Draws a bar on standard error if that is a terminal; else names each test as it begins."""
    if not sys.stderr.isatty():
        yield _Heading()
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=requests)
        yield lambda test: bar.update(task, advance=1, description=test)


class _Heading:
    """Prints the name of each test once."""

    def __init__(self) -> None:
        self._latest = ""

    def __call__(self, test: str) -> None:
        if test != self._latest:
            self._latest = test
            note(f"Measuring: {test} ...")


def _failed(error: Exception, base_url: str) -> str:
    if base_url:
        return (
            f"The benchmark ended: {error} Check that the server runs and speaks the Messages "
            "API (else --openai), and --model and --api-key."
        )
    return f"The benchmark ended: {error} See `anyclaudectl status`."


def _show(report: "Report") -> None:
    from anyclaude.cli.bench.summary import sentences

    print(f"{report.model} at {report.base_url}, {report.machine}\n")
    rows = [
        (
            row.test,
            row.name,
            f"{row.prompt_tokens:,}" if row.prompt_tokens else "",
            f"{row.reused_tokens:,}" if row.prompt_tokens else "",
            row.shown(row.median),
            row.spread if len(row.samples) > 1 else "",
        )
        for row in report.rows
    ]
    table(("TEST", "ROW", "TOKENS", "REUSED", "MEDIAN", "RANGE"), rows, right=(2, 3, 4))
    print()
    for sentence in sentences(report):
        print(sentence)


def _change(change: "Change") -> Row:
    before, after, ratio = change.before, change.after, change.ratio
    return (
        before.test,
        before.name,
        before.shown(before.median),
        after.shown(after.median),
        "-" if ratio is None else f"{ratio:.2f}",
        Cell(change.verdict, _TONES.get(change.verdict, Tone.DIM)),
    )
