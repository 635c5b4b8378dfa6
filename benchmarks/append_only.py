"""How many tokens of a long conversation real chat templates make a worker compute again.

    python -m benchmarks.append_only FOLDER [NAME ...] [--spliced auto|false]

FOLDER holds `templates/*.jinja` and `tokenizers/NAME`, as `python -m tests.real.material FOLDER`
puts them there. For each family a tool loop of ten steps with thinking is rendered; the model's
answers are simulated by what its template writes for the newest answer. A cell counts the tokens of
the next prompt that the cache does not hold, beyond those of the new messages themselves.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer

from anyclaude.messages.errors import ApiError
from anyclaude.messages.requests import Message
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.prompt import Prompt, PromptRenderer
from anyclaude.mlx.prompt.canonical import canonicalise
from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.prompt.pieces import PieceEncoder
from anyclaude.mlx.prompt.probe import find_dialect
from anyclaude.mlx.prompt.template import Template, TemplateRefused, template_source
from anyclaude.mlx.tokens import TokenArray
from benchmarks.prompts import WORDS
from tests.models import claude_tools
from tests.models.requests import (
    Block,
    assistant,
    call,
    request,
    result,
    system,
    text,
    thinking,
    user,
)
from tests.models.tokenizers import wrap

_SPLICED_BYTES: Final = 1 << 26
_STEPS: Final = 10
_CHATML: Final = ("<|im_start|>", "<|im_end|>")
_THINK: Final = ("<think>", "</think>")


@dataclass(frozen=True)
class Family:
    """The facts of a model family that its template does not contain."""

    # A file in `templates`, without its extension.
    template: str
    # The tokens with which the model ends an answer: with a call, and without.
    ends: tuple[str, str]
    # Control tokens that the tokenizer in `tokenizers` lacks.
    control: tuple[str, ...] = ()
    tokenizer: str = "qwen3"


_IM_END: Final = ("<|im_end|>", "<|im_end|>")
_GLM: Final = (
    *("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
)
_MISTRAL: Final = (
    *("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]", "[CALL_ID]"),
    *("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    *("[ARGS]", "[TOOL_CONTENT]", "[THINK]", "[/THINK]"),
)
_GEMMA4: Final = (
    *("<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|channel>"),
    *("<channel|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>"),
)
_KIMI: Final = (
    *("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"),
    *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"),
    *("<|tool_call_argument_begin|>", "<|tool_call_end|>"),
)
_DEEPSEEK_END: Final = ("<\uff5cend\u2581of\u2581sentence\uff5c>",) * 2

FAMILIES: Final = (
    Family("Qwen-Qwen3-0.6B", _IM_END),
    Family("Qwen3.5-4B", _IM_END),
    Family("Qwen3-Coder", _IM_END),
    Family("GLM-4.6", ("<|observation|>", "<|user|>"), _GLM),
    Family("GLM-4.7-Flash", ("<|observation|>", "<|user|>"), _GLM),
    Family(
        "MiniMax-M2",
        ("[e~[", "[e~["),
        ("]~!b[", "]~b]", "[e~[", "<minimax:tool_call>", "</minimax:tool_call>"),
    ),
    Family("Kimi-K2-Thinking", _IM_END, _KIMI),
    Family("google-gemma-4-31B-it", ("<|tool_response>", "<turn|>"), _GEMMA4, "gemma3"),
    Family("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", _IM_END),
    Family("StepFun3.5-Flash", _IM_END),
    Family("Mistral-Small-3.2-24B-Instruct-2506", ("</s>", "</s>"), _MISTRAL),
    Family("unsloth-mistral-Devstral-Small-2507", ("</s>", "</s>"), _MISTRAL),
    Family("mistralai-Ministral-3-14B-Reasoning-2512", ("</s>", "</s>"), _MISTRAL),
    Family("deepseek-ai-DeepSeek-V3.1", _DEEPSEEK_END, (), "deepseek_v3"),
    Family("LFM2-8B-A1B", _IM_END, _CHATML),
    Family("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", _IM_END, _CHATML, "llama3_1"),
    Family("meta-llama-Llama-3.3-70B-Instruct", ("<|eot_id|>",) * 2, (), "llama3_1"),
)


def load(folder: Path, family: Family) -> TokenizerWrapper:
    """The family's template on the nearest real vocabulary, with the control tokens it needs."""
    built = Tokenizer.from_file(str(folder / "tokenizers" / family.tokenizer / "tokenizer.json"))
    template = (folder / "templates" / f"{family.template}.jinja").read_text()
    special = ("<bos>", "<eos>", "</s>", *family.control)
    return wrap(built, template, special, _THINK)


class Model:
    """A model that writes exactly what its template writes for the newest answer."""

    def __init__(self, tokenizer: TokenizerWrapper, family: Family) -> None:
        self._family = family
        self.control = ControlTokens(
            tokenizer.added_tokens_decoder.values(), avoid=template_source(tokenizer)
        )
        self._template = Template(tokenizer, self.control)
        self._dialect = find_dialect(self._template)
        self._encoder = PieceEncoder(tokenizer, self.control)

    def answer(self, messages: Sequence[Block], answer: Block, **fields: Any) -> TokenArray:
        """The tokens of `answer` after the prompt of `messages`, with the one that ends it."""
        prompt = self._text(messages, True, **fields)
        whole = self._text([*messages, answer], False, **fields)
        common = next(
            (n for n, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b),
            min(len(prompt), len(whole)),
        )
        end = self._family.ends[0 if answer["content"][-1]["type"] == "tool_use" else 1]
        written = whole[common:].rpartition(end)[0] if end in whole[common:] else whole[common:]
        return self._encoder.encode(f"{written.rstrip()}{end}").token_ids

    def _text(self, messages: Sequence[Block], answer: bool, **fields: Any) -> str:
        conversation = canonicalise(request(*messages, **fields))
        tools = self._template.protected_tools(conversation.tools)
        adapted = self._dialect.adapt(conversation)
        return self._template.render(adapted, tools, thinking=True, answer=answer)


@dataclass
class Talk:
    """A conversation, and what a cache holds of it."""

    renderer: PromptRenderer
    model: Model
    fields: dict[str, Any]
    messages: list[Block] = field(default_factory=list)
    cached: list[TokenArray] = field(default_factory=list)

    def ask(self, *messages: Block) -> Prompt:
        self.messages += messages
        return self.renderer.render(request(*self.messages, **self.fields))

    def computed(self, prompt: Prompt) -> int:
        """The number of tokens that no cache holds."""
        return len(prompt.token_ids) - max(
            (_common(prompt.token_ids, known) for known in self.cached), default=0
        )

    def answer(self, prompt: Prompt, answer: Block) -> None:
        generated = self.model.answer(self.messages, answer, **self.fields)
        if prompt.answer_position is not None:
            self.renderer.keep_answer(
                prompt.answer_position, generated, Message.model_validate(answer)
            )
        # The token that ends an answer is never computed.
        self.cached.append(np.concatenate([prompt.token_ids, generated[:-1]]))
        self.messages.append(answer)

    def fork(self) -> "Talk":
        return Talk(self.renderer, self.model, self.fields, list(self.messages), list(self.cached))


def _common(first: TokenArray, second: TokenArray) -> int:
    size = min(len(first), len(second))
    different = np.flatnonzero(first[:size] != second[:size])
    return int(different[0]) if len(different) else size


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def _step(rng: random.Random, number: int, words: bool) -> Block:
    said = [text(_words(rng, 20))] if words else []
    return assistant(thinking(_words(rng, 200)), *said, call(f"toolu_{number:09}", _words(rng, 10)))


def measure(folder: Path, family: Family, *, spliced: bool) -> dict[str, int]:
    """The tokens computed beyond the new messages, for each kind of next request."""
    tokenizer = load(folder, family)
    rng = random.Random(7)
    fields: dict[str, Any] = {
        "system": _words(rng, 1000),
        "tools": [json.loads(tool.model_dump_json()) for tool in claude_tools.tools()],
        "thinking": {"type": "adaptive"},
    }
    if spliced:
        fields["context_management"] = {
            "edits": [{"type": "clear_thinking_20251015", "keep": "all"}]
        }
    renderer = PromptRenderer(
        tokenizer, spliced_bytes=_SPLICED_BYTES if spliced else 0, spliced_on_request=True
    )
    talk = Talk(renderer, Model(tokenizer, family), fields)

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
            figures = measure(arguments.folder, family, spliced=arguments.spliced == "auto")
        except (ApiError, TemplateRefused) as refusal:
            print(f"{family.template:42} refused: {refusal}")
            continue
        cells = "  ".join(f"{name} {count:6}" for name, count in figures.items())
        print(f"{family.template:42} {cells}", flush=True)


if __name__ == "__main__":
    main()
