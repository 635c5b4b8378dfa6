"""Answers the four tests of `anyclaudectl bench` with the demo model and a small real one.

    python -m benchmarks.first_tokens MATERIAL [--write README.md] [--short]

MATERIAL is the folder that `python -m tests.real.material` filled. With --write, the table and the
pictures of that page come from this run. It takes 20 minutes on two cores if
`tests/upstreams/install .upstreams openblas` has installed OpenBLAS, and hours without it.
"""

import argparse
import datetime
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import mlx.core as mx
import mlx_lm
from mlx_lm.utils import dequantize_model, save_config, save_model

from anyclaude.cli.bench.figures import Report, Row, load
from anyclaude.cli.bench.trials import SESSION_QUERIES
from anyclaude.mlx.demo import MODEL_PATH
from benchmarks.pages import write_section
from benchmarks.rivals.contestants import blas_environment, load_average
from tests.integration.service import Service
from tests.real import smollm2

_SHORT: Final = ("--tokens", "500", "--contexts", "500", "--memory-queries", "4")
SECTION: Final = "first tokens"


@dataclass(frozen=True)
class Case:
    """A model, how much is asked of it, and the picture of its times."""

    name: str
    options: tuple[str, ...]
    picture: str


CASES: Final = (
    Case("embedded demo model", ("--full",), "bench.svg"),
    # Its window has 8,192 tokens.
    Case(
        "SmolLM2-135M-Instruct, float32",
        ("--tokens", "2000", "--contexts", "1000,4000", "--memory-queries", "100"),
        "bench-smollm2.svg",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("material", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--short", action="store_true", help="small prompts, to try the script")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = given.write.parent / "docs" if given.write else Path(folder)
        real = Path(folder) / "SmolLM2-135M-Instruct"
        save_real(given.material / "smollm2", real)
        reports = {
            case: _measured(
                case, model, pictures.resolve(), _SHORT if given.short else case.options
            )
            for case, model in zip(CASES, (MODEL_PATH, real), strict=True)
        }
    blas = "OpenBLAS with one thread" if blas_environment() else "the BLAS of its wheel"
    text = page(reports, datetime.date.today().isoformat(), blas, load_average())
    print(text)
    if given.write:
        write_section(given.write, SECTION, text)


def save_real(material: Path, folder: Path) -> None:
    """SmolLM2 with weights in float32, which a CPU multiplies much faster than those of 4 bits."""
    (gguf,) = material.glob("*.gguf")
    smollm2.convert(gguf, folder)
    model, _, config = cast(Any, mlx_lm.load(str(folder), return_config=True))
    model = dequantize_model(model)
    # The weights are read from the file that is written next.
    mx.eval(model.parameters())
    save_model(folder, model)
    config.pop("quantization")
    save_config(config, folder / "config.json")


def _measured(case: Case, model: Path, pictures: Path, options: Sequence[str]) -> Report:
    print(f"{case.name} ...", flush=True)
    environ: dict[str, Any] = blas_environment()
    with Service(model=model, **environ) as service:
        service.ready()
        command = [sys.executable, "-m", "anyclaude.cli", "bench", *options, "--json"]
        picture = ("--picture", str(pictures / case.picture))
        result = service.home / "bench.json"
        with result.open("w") as file:
            subprocess.run([*command, *picture], env=service.environ, stdout=file, check=True)
        return load(result)


def page(reports: Mapping[Case, Report], when: str, blas: str, load: float) -> str:
    """The table in Markdown, with a column for each model, and the pictures below it."""
    columns = [dict(_answers(report)) for report in reports.values()]
    rows = [("Measured", *(case.name for case in reports)), ("---",) * (len(reports) + 1)]
    rows += [(name, *(column[name] for column in columns)) for name in columns[0]]
    (machine,) = {report.machine for report in reports.values()}
    return "\n".join(
        [
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            f"Measured on {when}, {machine}, load average {load:.1f} at the end. MLX used {blas}.",
            "",
            *(f"![First tokens, {case.name}](docs/{case.picture})\n" for case in reports),
        ]
    )


def _answers(report: Report) -> Iterator[tuple[str, str]]:
    """The name of each row of the table, and what it says of this model."""
    first = _row(report, "1 session", "query 1")
    follow = _row(report, "1 session", f"queries 2 to {SESSION_QUERIES}")
    another = _row(report, "1 session", "another session")
    bare = _row(report, "1 session", "no instructions")
    yield "Test 1: first query of a session", f"{_shown(first)}, {first.prompt_tokens:,} tokens"
    yield "a query without instructions", _shown(bare)
    yield f"queries 2 to {SESSION_QUERIES}", _times(first, follow)
    yield "first query of another session", _times(first, another)
    yield "Test 2: query 20 of a session", _shown(_row(report, "2 growth", "query 20"))
    yield "caches after queries", _series(report, "2 growth", "caches")
    yield "Test 3: prompts of other sizes, new and followed up", "<br>".join(_contexts(report))
    yield "Test 4: memory after queries", _series(report, "4 memory", "resident")


def _row(report: Report, test: str, name: str) -> Row:
    row = report.row(test, name)
    assert row is not None, f"no row {name!r} of {test!r}"
    return row


def _shown(row: Row) -> str:
    return f"{row.shown(row.median)} ({row.spread})"


def _times(slow: Row, fast: Row) -> str:
    return f"{_shown(fast)}, {slow.median / fast.median:.0f} times sooner"


def _contexts(report: Report) -> Iterator[str]:
    for new in report.rows:
        size, _, kind = new.name.rpartition(", ")
        if kind == "new":
            follow = _row(report, new.test, f"{size}, follow-up")
            times = f"{new.shown(new.median)}, {follow.shown(follow.median)}"
            yield f"{size}: {times}, {new.median / follow.median:.0f} times sooner"


def _series(report: Report, test: str, name: str) -> str:
    """Bytes by the number of the query that they were counted after."""
    rows = [row for row in report.rows if row.test == test and row.name.startswith(name)]
    counts = (re.sub(r"\D", "", row.name) for row in rows)
    return ", ".join(f"{n}: {row.shown(row.median)}" for n, row in zip(counts, rows, strict=True))


if __name__ == "__main__":
    main()
