"""The table of model families, made by a run over all chat templates.

    python -m tests.real.table FOLDER [NAME ...] [--write PAGE]

FOLDER holds what `python -m tests.real.material FOLDER` put there. Each NAME is part of the name of
a template. Without `--write` the rows are printed.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

import structlog

from anyclaude.messages.errors import ApiError
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.mlx.prompt.template import TemplateRefused
from benchmarks.append_only import measure_with_restart, new_renderer
from tests.models.requests import request
from tests.real import recorded
from tests.real.answers_read import read_answers
from tests.real.families import FAMILIES, Family, load

# The tokens beyond those of the new messages that a next request may compute.
ALLOWED_TOKENS: Final = 64
CHECKS: Final = ("renders", "complete", "calls", "thinking", "held")
# The figures of `measure_with_restart` that stand in the table, and their titles.
COSTS: Final = {
    "step": "step",
    "question": "question",
    "reminder": "reminder",
    "interruption": "interruption",
    "restart": "restart",
}
_REASONS: Final = 3
# So much of each vocabulary is enough, and the grammars of a whole one take seconds to compile.
_PIECES: Final = 20_000
# The page without its tables.
_PAGE: Final = Path(__file__).with_name("models_page.md")


@dataclass
class Row:
    """What was found out about one family."""

    family: Family
    offers_tools: bool = True
    # What is wrong, by check; a check is green if nothing is.
    problems: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in CHECKS})
    costs: Mapping[str, int] = field(default_factory=dict)

    def is_green(self) -> bool:
        return self.offers_tools and not self.reasons()

    def reasons(self) -> list[str]:
        """Everything that is not green, in words."""
        found = [
            f"{name}: {'; '.join(_few(problems))}"
            for name, problems in self.problems.items()
            if problems
        ]
        found += [
            f"{title}: {self.costs[key]:,} tokens are computed again"
            for key, title in COSTS.items()
            if self.costs.get(key, 0) > ALLOWED_TOKENS
        ]
        return found


def examine(folder: Path, family: Family) -> Row:
    """Runs all checks of one family."""
    row = Row(family)
    tokenizer = load(folder, family, pieces=_PIECES, streams=True)
    renderer = new_renderer(tokenizer)
    _render(renderer, tokenizer, row)
    if not row.offers_tools:
        return row
    try:
        reading = read_answers(renderer, tokenizer, family)
        row.problems["calls"] += reading.calls
        row.problems["thinking"] += reading.thinking
        row.problems["held"] += reading.held
        with tempfile.TemporaryDirectory() as name:
            row.costs = measure_with_restart(tokenizer, family, Path(name))
    except (ApiError, TemplateRefused) as refusal:
        _note(row.problems["renders"], _refusal(refusal))
    return row


def _render(renderer: PromptRenderer, tokenizer: TokenizerWrapper, row: Row) -> None:
    """Renders the recorded conversation, and looks for each sentence that was planted in it."""
    fields, planted = recorded.fields(thinks=row.family.thinks)
    for asked in recorded.requests(planted):
        try:
            prompt = renderer.render(request(*asked.messages, **fields))
        except ApiError as refusal:
            _note(row.problems["renders"], _refusal(refusal))
            continue
        words = tokenizer.decode(prompt.token_ids.tolist())
        missing = [part for part, sentence in asked.planted.items() if sentence not in words]
        tools = [part for part in missing if part.startswith("the description of")]
        if len(tools) == len(fields["tools"]) and not row.family.calls:
            row.offers_tools = False
        for part in missing:
            if row.offers_tools or part not in tools:
                _note(row.problems["complete"], f"{part} is missing")


def _refusal(refusal: Exception) -> str:
    words = refusal.message if isinstance(refusal, ApiError) else str(refusal)
    return words.rpartition("refuses the conversation: ")[2].partition(" (start with")[0]


def _note(found: list[str], words: str) -> None:
    if words not in found:
        found.append(words)


def _few(problems: Sequence[str]) -> list[str]:
    more = len(problems) - _REASONS
    return [*problems[:_REASONS], *([f"{more} more"] if more > 0 else [])]


def page(rows: Sequence[Row]) -> str:
    """The page `docs/models.md`."""
    first = [row for row in rows if row.family.first]
    others = [row for row in rows if not row.family.first]
    without = [line(row) for row in others if not row.offers_tools]
    return _PAGE.read_text(encoding="utf-8").format(
        allowed=ALLOWED_TOKENS,
        first="\n".join(_table(first)),
        others="\n".join(_table([row for row in others if row.offers_tools])),
        without="\n".join(without),
        reasons="\n".join(chain.from_iterable(map(reasons, rows))) or "Nothing.",
    )


def _table(rows: Sequence[Row]) -> Iterator[str]:
    titles = ["template", "vocabulary", *CHECKS, *COSTS.values()]
    yield f"| {' | '.join(titles)} |"
    yield "|" + "---|" * (2 + len(CHECKS)) + "---:|" * len(COSTS)
    yield from map(line, rows)


def line(row: Row) -> str:
    """The line of a family in its table."""
    if not row.offers_tools:
        return f"- `{row.family.template}`"
    cells = [f"`{row.family.template}`", row.family.tokenizer]
    cells += [_check(row, name) for name in CHECKS]
    cells += [_cost(row.costs.get(key)) for key in COSTS]
    return f"| {' | '.join(cells)} |"


def reasons(row: Row) -> Iterator[str]:
    """The lines that say what is red in a family."""
    if row.offers_tools and (found := row.reasons()):
        yield f"- `{row.family.template}`"
        yield from (f"  - {reason}" for reason in found)
        if row.family.why:
            yield f"  - why: {row.family.why}"


def _check(row: Row, name: str) -> str:
    if row.problems["renders"] and not row.costs and name != "renders":
        return "not tried"
    if row.problems[name]:
        return "**red**"
    return "-" if name == "thinking" and not row.family.thinks else "green"


def _cost(tokens: int | None) -> str:
    if tokens is None:
        return "not tried"
    return f"{max(tokens, 0)}" if tokens <= ALLOWED_TOKENS else f"**{tokens:,}**"


def run(folder: Path, names: Sequence[str] = ()) -> Iterator[Row]:
    """Examines the families whose templates contain one of `names`; all if there are none."""
    # What the worker would log about each model is what the table says.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for family in FAMILIES:
        if not names or any(name in family.template for name in names):
            yield examine(folder, family)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="parts of the names of templates")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page of all families")
    arguments = parser.parse_args()
    rows = []
    for row in run(arguments.folder, arguments.names):
        rows.append(row)
        print(
            f"{row.family.template}: {row.reasons() if row.offers_tools else 'no tools'}",
            flush=True,
        )
    if arguments.write:
        arguments.write.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
