"""How many tokens of a long conversation real chat templates make a worker compute again.

    python -m benchmarks.append_only FOLDER [NAME ...] [--spliced auto|false]

FOLDER holds `templates/*.jinja` and `tokenizers/NAME`, as `python -m tests.real.material FOLDER`
puts them there. For each family a tool loop of ten steps with thinking is rendered; the model's
answers are simulated by what its template writes for the newest answer. A cell counts the tokens of
the next prompt that the cache does not hold, beyond those of the new messages themselves; "restart"
is the question after a restart of the worker.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from anyclaude.messages.errors import ApiError
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.prompt import Prompt, PromptRenderer
from anyclaude.mlx.prompt.stored_folder import StoredFolder
from anyclaude.mlx.prompt.template import TemplateRefused
from benchmarks.prompts import WORDS
from tests.models import claude_tools
from tests.models.requests import (
    Block,
    assistant,
    call,
    result,
    system,
    text,
    thinking,
    user,
)
from tests.real.families import FAMILIES, Family, load
from tests.real.talk import Model, Talk

_SPLICED_BYTES: Final = 1 << 26
_STEPS: Final = 10
_CLOSE_SECONDS: Final = 60.0


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def _step(rng: random.Random, number: int, words: bool) -> Block:
    said = [text(_words(rng, 20))] if words else []
    return assistant(thinking(_words(rng, 200)), *said, call(f"toolu_{number:09}", _words(rng, 10)))


def new_renderer(
    tokenizer: TokenizerWrapper, *, spliced: bool = True, stored: StoredFolder | None = None
) -> PromptRenderer:
    """A renderer that keeps answers for requests that ask to keep all thinking.

    Args:
        stored: where the answers survive the renderer.
    """
    return PromptRenderer(
        tokenizer,
        spliced_bytes=_SPLICED_BYTES if spliced else 0,
        spliced_on_request=True,
        stored=stored,
    )


def measure(
    renderer: PromptRenderer,
    tokenizer: TokenizerWrapper,
    family: Family,
    restarted: Callable[[], PromptRenderer] | None = None,
) -> dict[str, int]:
    """The tokens computed beyond the new messages, for each kind of next request.

    Args:
        restarted: makes the renderer of the next process; without it, no restart is measured.
    """
    rng = random.Random(7)
    fields: dict[str, Any] = {
        "system": _words(rng, 1000),
        "tools": [json.loads(tool.model_dump_json()) for tool in claude_tools.tools()],
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    }
    talk = Talk(renderer, Model(renderer, tokenizer, family), fields)

    def size(words: str) -> int:
        return len(tokenizer.encode(words, add_special_tokens=False))

    prompt = talk.ask(user(_words(rng, 300)), system(_words(rng, 500)))
    figures = {"prompt": 0, "step": 0}
    for number in range(_STEPS):
        talk.answer(prompt, _step(rng, number, words=number % 3 == 1))
        output = _words(rng, 1500)
        prompt = talk.ask(user(result(f"toolu_{number:09}", output)))
        figures["step"] = max(figures["step"], talk.computed(prompt) - size(output))
    figures["prompt"] = len(prompt.token_ids)
    for name, messages in _endings(rng, talk, prompt):
        fork = talk.fork()
        new = [block for message in messages for block in message["content"]]
        forked = fork.ask(*messages)
        own = sum(size(_said(block)) for block in new)
        figures[name] = fork.computed(forked) - own
        if name == "question" and restarted is not None:
            again = replace(talk.fork(), renderer=restarted())
            figures["restart"] = again.computed(again.ask(*messages)) - own
    return figures


def _endings(rng: random.Random, talk: Talk, prompt: Prompt) -> Iterator[tuple[str, list[Block]]]:
    """The messages that each kind of request adds after the loop."""
    loop = talk.fork()
    talk.answer(prompt, _step(rng, 90, words=False))
    reminder = text(f"<system-reminder>\n{_words(rng, 60)}\n</system-reminder>")
    found = result("toolu_000000090", _words(rng, 300))
    yield "reminder", [user(found, reminder)]
    yield "interruption", [user(found, text("[Request interrupted by user for tool use]"))]
    talk.messages = loop.messages
    talk.answer(prompt, assistant(thinking(_words(rng, 200)), text(_words(rng, 100))))
    yield "question", [user(text(_words(rng, 50)))]
    yield "question and system", [user(text(_words(rng, 50))), system(text(_words(rng, 50)))]


def _said(block: Block) -> str:
    return str(block.get("content", block.get("text", "")))


def measure_with_restart(
    tokenizer: TokenizerWrapper, family: Family, folder: Path, *, spliced: bool = True
) -> dict[str, int]:
    """The same, and the question after a restart of the worker, which keeps answers in `folder`."""
    stored = StoredFolder(folder, "model", _SPLICED_BYTES)

    def restarted() -> PromptRenderer:
        stored.close(_CLOSE_SECONDS)
        again = StoredFolder(folder, "model", _SPLICED_BYTES)
        return new_renderer(tokenizer, spliced=spliced, stored=again)

    renderer = new_renderer(tokenizer, spliced=spliced, stored=stored)
    return measure(renderer, tokenizer, family, restarted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--spliced", choices=("auto", "false"), default="auto")
    parser.add_argument("names", nargs="*", help="parts of the names of templates")
    arguments = parser.parse_args()
    for family in FAMILIES:
        if arguments.names and not any(name in family.template for name in arguments.names):
            continue
        try:
            tokenizer = load(arguments.folder, family)
            with tempfile.TemporaryDirectory() as name:
                figures = measure_with_restart(
                    tokenizer, family, Path(name), spliced=arguments.spliced == "auto"
                )
        except (ApiError, TemplateRefused) as refusal:
            print(f"{family.template:42} refused: {refusal}")
            continue
        cells = "  ".join(f"{name} {count:6}" for name, count in figures.items())
        print(f"{family.template:42} {cells}", flush=True)


if __name__ == "__main__":
    main()
