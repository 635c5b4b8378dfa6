"""Whether the calls, words and thoughts of a family's answers are read, and held to the schema.

Every answer is written twice: as the documentation describes it (`documented`), and as the chat
template writes it into the next prompt. Both are read in the tokenizer's tokens, with a grammar and
without, and in tokens that end at random places.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from anyclaude.messages.requests import ToolChoice
from anyclaude.mlx.adapter import TokenizerWrapper, opens_thinking
from anyclaude.mlx.decode import BlockStream
from anyclaude.mlx.decode.constraint import AnswerGrammar, ConstraintCompiler
from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.runtime.settings import GrammarSettings
from anyclaude.worker.v1.worker_pb2 import GenerateResponse
from tests.models import claude_tools
from tests.models.answers import Block, read_blocks
from tests.models.requests import assistant, request, text, thinking, user
from tests.real.documented import NOTATIONS, Call, Notation
from tests.real.families import Family
from tests.real.talk import Model

_CUTS: Final = 2
_LONGEST_CUT: Final = 7
WORDS: Final = "I will look at the folder first."
THOUGHT: Final = "The user wants a list. I should run a command."
_ASKED: Final = (user("List the files."),)
_LS: Final[Call] = ("Bash", {"command": "ls -la src"})
_READ: Final[Call] = ("Read", {"file_path": "/tmp/a b.txt", "offset": 20})
_NESTED: Final[Call] = (
    "MultiEdit",
    {
        "file_path": "src/main.py",
        "edits": [
            {"old_string": "a = {}", "new_string": 'a = {"b": [1, 2]}', "replace_all": True},
            {"old_string": "x", "new_string": ""},
        ],
    },
)
_TRICKY_TEXT: Final = (
    'echo "it\'s \\"done\\""\n\tif [ 1 -lt 2 ]; then {}; fi\n\n# gr\u00fc\u00dfe \u9752 \U0001f7e1 '
    "</think> a <b> & c\\n"
)


@dataclass(frozen=True)
class Shape:
    """One answer: perhaps a thought, perhaps words, then calls."""

    name: str
    calls: tuple[Call, ...]
    words: str = ""
    thought: str = ""


@dataclass(frozen=True)
class Reading:
    """What is wrong with reading a family's answers; each list is empty if nothing is."""

    calls: list[str]
    thinking: list[str]
    held: list[str]


def read_answers(renderer: PromptRenderer, tokenizer: TokenizerWrapper, family: Family) -> Reading:
    """Writes and reads all answers of a family."""
    return _Reader(renderer, tokenizer, family).read()


def _shapes(markers: str, *, thinks: bool) -> Iterator[Shape]:
    yield Shape("one call", (_LS,))
    yield Shape("two calls", (_LS, _READ))
    yield Shape("words before a call", (_LS,), WORDS)
    yield Shape("nested JSON", (_NESTED,))
    yield Shape("quotes, lines and markers", (("Bash", {"command": f"{_TRICKY_TEXT}{markers}"}),))
    if thinks:
        yield Shape("thinking before a call", (_LS,), "", THOUGHT)
        yield Shape("thinking, words and a call", (_LS,), WORDS, THOUGHT)


class _Reader:
    def __init__(
        self, renderer: PromptRenderer, tokenizer: TokenizerWrapper, family: Family
    ) -> None:
        self._family = family
        self._tokenizer = tokenizer
        self._model = Model(renderer, tokenizer, family)
        self._tools = claude_tools.tools(bounded=False)
        self._fields: dict[str, Any] = {
            "tools": [json.loads(tool.model_dump_json()) for tool in self._tools]
        }
        if family.thinks:
            self._fields["thinking"] = {"type": "adaptive"}
        prompt = renderer.render(request(*_ASKED, **self._fields))
        self._in_thinking = opens_thinking(self._tokenizer, prompt.token_ids)
        self._compiler = ConstraintCompiler.of(self._tokenizer, GrammarSettings())
        grammar = self._grammar()
        self._constrained = grammar is not None and grammar.new_reader is not None
        self._reading = Reading([], [], [])

    def read(self) -> Reading:
        if not self._constrained:
            self._reading.held.append("no grammar describes its calls")
        notation = NOTATIONS.get(self._family.calls)
        start, end = self._tokenizer.tool_call_start or "", self._tokenizer.tool_call_end or ""
        for shape in _shapes(f"{start} {end}", thinks=self._family.thinks):
            single = len(shape.calls) == 1
            if notation is not None and (notation.parallel or single):
                self._check("documentation", shape, self._documented(notation, shape))
            if bool(shape.thought) == self._family.thinks and self._is_written_apart(shape):
                self._check_template(shape)
        return self._reading

    def _is_written_apart(self, shape: Shape) -> bool:
        """Whether the template writes the parts of an answer as parts of one turn."""
        dialect = self._model.dialect
        has_words = not shape.words or dialect.text_with_call
        has_both = not (shape.words and shape.thought) or dialect.thinking_and_text_with_call
        return (len(shape.calls) == 1 or dialect.parallel_calls) and has_words and has_both

    def _documented(self, notation: Notation, shape: Shape) -> str:
        protect = self._model.control.protect
        written = ""
        if shape.thought or self._in_thinking:
            opening, closing = notation.thought
            written = "" if self._in_thinking else opening
            written += f"{protect(shape.thought)}{closing}"
        if shape.words:
            written += protect(shape.words).join(notation.words)
        return written + notation.calls([(name, protect(given)) for name, given in shape.calls])

    def _check_template(self, shape: Shape) -> None:
        """Reads the answer as far as the template writes it."""
        blocks = [thinking(shape.thought)] if shape.thought else []
        blocks += [text(shape.words)] if shape.words else []
        blocks += [
            {"type": "tool_use", "id": f"toolu_{n:09}", "name": name, "input": given}
            for n, (name, given) in enumerate(shape.calls)
        ]
        written = self._model.written(_ASKED, assistant(*blocks), **self._fields)
        end = self._family.ends[0]
        written = written.removesuffix(end)
        if not all(name in written for name, _ in shape.calls):
            return
        said = replace(
            shape,
            words=shape.words if shape.words in written else "",
            thought=shape.thought if shape.thought in written else "",
        )
        self._check("template", said, written)

    def _check(self, source: str, shape: Shape, written: str) -> None:
        name = f"{shape.name} ({source})"
        for seed in range(_CUTS + 1):
            tokens = list(self._tokens(written, random.Random(seed) if seed else None))
            self._compare(name, shape, tokens, None)
            # Where a grammar leaves no choice, it allows only the tokens that the tokenizer makes.
            if self._constrained and not seed:
                self._compare(name, shape, tokens, self._grammar())

    def _compare(
        self, name: str, shape: Shape, tokens: list[int], grammar: AnswerGrammar | None
    ) -> None:
        reading = self._reading
        calls = reading.calls if grammar is None else reading.held
        try:
            blocks, refused = self._blocks(tokens, grammar)
        except Exception as error:  # noqa: BLE001 - any error of the parts is a finding
            _note(calls, f"{name}: {type(error).__name__}: {str(error)[:80]}")
            return
        if refused is not None:
            _note(reading.held, f"{name}: the grammar forbids `{refused!r}`")
            return
        made = [(block.name, block.input) for block in blocks if block.kind == "tool_use"]
        if made != list(shape.calls):
            _note(calls, f"{name}: {_difference(made, shape.calls)}")
        words = "".join(block.text for block in blocks if block.kind == "text").strip()
        if words != shape.words:
            _note(calls, f"{name}: the text is `{words[:60]!r}`")
        thought = "".join(block.text for block in blocks if block.kind == "thinking").strip()
        if thought != shape.thought:
            _note(reading.thinking, f"{name}: the thinking is `{thought[:60]!r}`")

    def _blocks(
        self, tokens: list[int], grammar: AnswerGrammar | None
    ) -> tuple[list[Block], str | None]:
        """The blocks of an answer, or the text of the first token that the grammar forbids."""
        stream = BlockStream(
            self._tokenizer, self._tools, (), in_thinking=self._in_thinking, grammar=grammar
        )
        events: list[GenerateResponse] = []
        for token in tokens:
            if grammar is not None and grammar.constraint.is_active:
                allowed = grammar.constraint.mask()
                if not allowed[token // 32] >> token % 32 & 1:
                    return [], self._tokenizer.decode([token])
            events += stream.push(token)
        events += stream.finish(cut=False)
        return list(read_blocks(events)), None

    def _grammar(self) -> AnswerGrammar | None:
        if self._compiler is None:
            return None
        return self._compiler.compile(
            self._tools,
            ToolChoice(),
            None,
            in_thinking=self._in_thinking,
            may_think=self._family.thinks,
        )

    def _tokens(self, written: str, rng: random.Random | None) -> Iterator[int]:
        """The tokens of a protected text; with `rng`, ordinary tokens end at random places."""
        if rng is None:
            yield from self._model.encode(written)
            return
        for index, piece in enumerate(self._model.control.split(written)):
            if index % 2:
                yield from self._model.encode(piece)
                continue
            for plain in self._model.control.reveal(piece):
                yield from self._cut(plain, rng)

    def _cut(self, plain: str, rng: random.Random) -> Iterator[int]:
        while plain:
            size = rng.randint(1, _LONGEST_CUT)
            yield from self._tokenizer.encode(plain[:size], add_special_tokens=False)
            plain = plain[size:]


def _note(found: list[str], words: str) -> None:
    if words not in found:
        found.append(words)


def _difference(made: Sequence[Call], wanted: Sequence[Call]) -> str:
    if [name for name, _ in made] != [name for name, _ in wanted]:
        return f"the calls are `{[name for name, _ in made]}`"
    pairs = zip(made, wanted, strict=True)
    key, value = next(
        (key, given.get(key))
        for (_, given), (_, right) in pairs
        for key in {**right, **given}
        if given.get(key) != right.get(key)
    )
    return f"`{key}` is `{str(value)[:60]!r}`"
