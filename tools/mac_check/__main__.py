"""The command: chooses sections, runs them one after another, prints the report."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from anyclaude.cli.masking import Masking
from anyclaude.mlx.demo import MODEL_PATH
from tools.mac_check import launchd, machine, measures
from tools.mac_check.report import Finished, Outcome, Section, run_section, table


def main(arguments: Sequence[str]) -> int:
    """Prints the report; returns 1 when a section failed."""
    options = parse(arguments)
    chosen = [
        section for section in sections(options) if not options.only or section.name in options.only
    ]
    finished = []
    for section in chosen:
        print(f"mac-check: {section.title} ...", file=sys.stderr)
        finished.append(run_section(section))
    print(Masking.of_this_machine(os.environ).apply(render(finished, options.model)))
    return int(any(one.outcome is Outcome.FAILED for one in finished))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/mac-check", description=main.__doc__)
    names = [section.name for section in sections(argparse.Namespace(model=None, no_sleep=True))]
    parser.add_argument("--model", type=Path, help="a model's folder; else the demo model")
    parser.add_argument("--only", action="append", choices=names, help="run this section alone")
    parser.add_argument("--no-sleep", action="store_true", help="do not ask for sleep and wake")
    options = parser.parse_args(arguments)
    if options.model is not None:
        options.model = options.model.expanduser().absolute()
        if not (options.model / "config.json").is_file():
            parser.error(f"--model: there is no config.json in {options.model}")
    return options


def sections(options: argparse.Namespace) -> list[Section]:
    """All sections, in the order of the report."""
    model, path = options.model, options.model or MODEL_PATH
    may_ask = not options.no_sleep and sys.stdin.isatty()
    return [
        Section("machine", "Machine", lambda: table(("What", "Value"), machine.describe())),
        Section(
            "system", "Around the service", lambda: table(("What", "Value"), machine.surroundings())
        ),
        Section("memory", "Memory", partial(measures.memory_section, model)),
        Section("speed", "Speed", partial(measures.speed_section, model, path)),
        Section("verify", "Exactness of caches", partial(measures.verify_section, model)),
        Section("launchd", "launchd", partial(launchd.section, model)),
        Section("sleep", "Sleep and wake", partial(measures.sleep_section, model, may_ask=may_ask)),
    ]


def render(finished: Sequence[Finished], model: Path | None) -> str:
    name = model.name if model else "the embedded demo model"
    head = ["# anyclaude: report of tools/mac-check", "", f"Model: {name}", ""]
    return "\n".join([*head, *(one.markdown() for one in finished)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
