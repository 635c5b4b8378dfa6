"""docs/performance.md and its pictures: every figure comes from one run of `make rivals`."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from anyclaude.cli.bench.chart import Bar, draw
from anyclaude.cli.units import counted, format_bytes, format_seconds
from benchmarks.rivals.rounds import Results, Sample, Setting

OURS: Final = "anyclaude"


class Kind(Enum):
    """What a row measures."""

    SECONDS = "seconds"
    BYTES = "bytes"
    SPEED = "tokens per second"

    @property
    def more_is_better(self) -> bool:
        return self is Kind.SPEED


@dataclass(frozen=True)
class Run:
    """What the page says about the run as a whole."""

    machine: str
    date: str
    blas: str
    load: tuple[float, float]
    versions: Mapping[str, str]


def kind_of(row: str) -> Kind:
    if row.startswith("decode"):
        return Kind.SPEED
    return Kind.BYTES if row.startswith("memory") else Kind.SECONDS


def write(page: Path, run: Run, results: Sequence[tuple[Setting, Results]]) -> None:
    """Writes the page, and its pictures beside it."""
    parts = [_head(run)]
    for number, (setting, result) in enumerate(results, 1):
        parts.append(_section(setting, result, list(run.versions)))
        for what, kind in (("first-token", Kind.SECONDS), ("decode", Kind.SPEED)):
            groups = _bars(result, list(run.versions), kind)
            if groups:
                name = f"performance-{number}-{what}.svg"
                title = f"{_TITLES[kind]}: {setting.name}"
                (page.parent / name).write_text(draw(title, groups))
                parts.append(f"![{title}]({name})\n")
    parts.append(_OWN)
    page.write_text("\n".join(parts))


_TITLES: Final = {
    Kind.SECONDS: "Time to the first token (less is better)",
    Kind.SPEED: "Tokens per second of all streams (more is better)",
}


_OWN: Final = """[What it saves](../README.md#what-it-saves) has the service alone, with the
embedded demo model and a real one: that is what `anyclaudectl bench` measures on your machine.
"""


def _head(run: Run) -> str:
    versions = "".join(f"| {name} | {version} |\n" for name, version in run.versions.items())
    return f"""# Performance

This service and other local servers, side by side on one machine with the same model. `make rivals`
installs them, measures, and writes this page; nothing on it is typed by hand.

Measured on {run.date}, {run.machine}. The load average was {run.load[0]:.1f} at the start and
{run.load[1]:.1f} at the end, the benchmark included.
{run.blas}

| Server | Version |
|---|---|
{versions}
In each round every server gets the same work, one server after the other. The models have random
weights, so answers mean nothing; the work for each token is that of a real model of the same shape.
mlx_lm.server is asked by chat completions, the others by the Messages API. Tools are written into
the instructions, as chat templates do. Drafts, which guess the text that follows, are off: a model
with random weights repeats itself, and they would look too good. Only anyclaude has modes.

Cells are the median and, in brackets, the range of the rounds. The best median of a row is bold.
"""


def _section(setting: Setting, results: Results, servers: Sequence[str]) -> str:
    rows = list(dict.fromkeys(row for row, _ in results.samples))
    title = f"## {setting.name}\n\nInstructions of about {setting.tokens:,} tokens, "
    title += f"{counted(_rounds(results), 'round')}.\n"
    lines = [title, _table_head("Measured", servers)]
    lines += [_line(row, results, servers) for row in rows]
    cpu = [row for row in rows if _has_cpu(row, results)]
    lines += ["\nProcessor time of all processes of a server (for decoding: for each token).\n"]
    lines += [_table_head("CPU time", servers)]
    lines += [_cpu_line(row, results, servers) for row in cpu]
    lines += ["", *_failures(results), *_standing(rows, results, servers), ""]
    return "\n".join(lines)


def _rounds(results: Results) -> int:
    return max(map(len, results.samples.values()), default=0)


def _table_head(first: str, servers: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(servers)} |\n|---{'|---' * len(servers)}|"


def _line(row: str, results: Results, servers: Sequence[str]) -> str:
    kind = kind_of(row)
    medians = {name: _median(results, row, name) for name in servers}
    known = [value for value in medians.values() if value is not None]
    best = (max if kind.more_is_better else min)(known)
    cells = []
    for name in servers:
        samples = results.samples.get((row, name))
        if not samples:
            cells.append("failed" if name in results.failures else "-")
            continue
        text = _shown(kind, statistics.median(s.value for s in samples))
        text = f"**{text}**" if medians[name] == best and len(known) > 1 else text
        cells.append(f"{text} ({_range(kind, samples)})" if len(samples) > 1 else text)
    return f"| {row} | {' | '.join(cells)} |"


def _cpu_line(row: str, results: Results, servers: Sequence[str]) -> str:
    cells = []
    for name in servers:
        samples = results.samples.get((row, name), [])
        spent = [sample.cpu_seconds for sample in samples]
        cells.append(_shown(Kind.SECONDS, statistics.median(spent)) if spent else "-")
    return f"| {row} | {' | '.join(cells)} |"


def _has_cpu(row: str, results: Results) -> bool:
    return any(
        s.cpu_seconds for key, all_ in results.samples.items() if key[0] == row for s in all_
    )


def _failures(results: Results) -> Iterator[str]:
    for name, reasons in results.failures.items():
        yield f"{name} failed {counted(len(reasons), 'time')}, first with: `{reasons[0]}`\n"


def _standing(rows: Sequence[str], results: Results, servers: Sequence[str]) -> Iterator[str]:
    """Says in which rows another server is ahead of this one by more than the run's own spread."""
    if _rounds(results) < 2:
        yield "One round shows no spread, so nothing is said about who is ahead."
        return
    behind = [text for row in rows if (text := _ahead(row, results, servers))]
    if not results.samples.keys() & {(row, OURS) for row in rows}:
        yield "anyclaude was not measured."
    elif behind:
        yield "In these rows another server is ahead of anyclaude by more than their ranges:\n"
        yield from (f"- {text}" for text in behind)
    else:
        yield "anyclaude is first, or its range overlaps with that of the first, in every row."


def _ahead(row: str, results: Results, servers: Sequence[str]) -> str:
    """The best rival if its samples and ours do not overlap; else nothing."""
    ours = [sample.value for sample in results.samples.get((row, OURS), [])]
    found: dict[str, list[float]] = {}
    for name in servers:
        values = [sample.value for sample in results.samples.get((row, name), [])]
        if name != OURS and ours and values and _beats(kind_of(row), values, ours):
            found[name] = values
    if not found:
        return ""
    middle = {name: statistics.median(values) for name, values in found.items()}
    choose = max if kind_of(row).more_is_better else min
    name = choose(middle, key=lambda one: middle[one])
    texts = [_shown(kind_of(row), value) for value in (middle[name], statistics.median(ours))]
    return f"{row}: {name}, {texts[0]} against {texts[1]}"


def _beats(kind: Kind, values: Sequence[float], ours: Sequence[float]) -> bool:
    return min(values) > max(ours) if kind.more_is_better else max(values) < min(ours)


def _bars(results: Results, servers: Sequence[str], kind: Kind) -> dict[str, dict[str, Bar]]:
    groups: dict[str, dict[str, Bar]] = {}
    for row in dict.fromkeys(row for row, _ in results.samples):
        if kind_of(row) is not kind:
            continue
        medians = {name: _median(results, row, name) for name in servers}
        groups[row] = {
            name: Bar(value, _shown(kind, value)) for name, value in medians.items() if value
        }
    return {row: bars for row, bars in groups.items() if bars}


def _median(results: Results, row: str, server: str) -> float | None:
    samples = results.samples.get((row, server))
    return statistics.median(sample.value for sample in samples) if samples else None


def _range(kind: Kind, samples: Sequence[Sample]) -> str:
    values = [sample.value for sample in samples]
    return f"{_shown(kind, min(values))} to {_shown(kind, max(values))}"


def _shown(kind: Kind, value: float) -> str:
    match kind:
        case Kind.SPEED:
            return f"{value:,.0f}/s"
        case Kind.BYTES:
            return format_bytes(round(value))
        case _:
            return f"{value * 1000:.1f} ms" if value < 1 else format_seconds(value)
