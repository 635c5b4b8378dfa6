"""Compiles what a request asks for into what its answer is held to.

Compiling takes tens of milliseconds, so it happens before a request reaches the MLX thread, and
its results are kept.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, TypeVar

import structlog
from llguidance import LLMatcher, LLTokenizer

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.adapter import TokenizerWrapper, parser_family, tokenizer_json
from anyclaude.mlx.decode.constraint.call import call, calls
from anyclaude.mlx.decode.constraint.combined import NotExpressible
from anyclaude.mlx.decode.constraint.lark import Lark
from anyclaude.mlx.decode.constraint.masks import (
    Beginning,
    Constraint,
    Plan,
    mask_of,
    mask_words,
)
from anyclaude.mlx.decode.constraint.parameters import Parameter, parameters
from anyclaude.mlx.decode.constraint.reader import CallReading, KnownTool, needs_check
from anyclaude.mlx.decode.constraint.schemas import (
    Schema,
    arguments_schema,
    closed,
    without_fine_print,
)
from anyclaude.mlx.decode.notations import TaggedShape, shape_of

_log = structlog.get_logger(__name__)

Made = TypeVar("Made")

KEPT_GRAMMARS: Final = 16
"""Compiled grammars kept, the most recently used."""
KEPT_TOOLS: Final = 512
_FREE_OBJECT: Final[Schema] = {"type": "object"}


class Begin(Enum):
    """Where a grammar begins to hold."""

    # At a call's start marker.
    AT_CALL = auto()
    # At the answer's first token, or that behind its thinking.
    AT_ANSWER = auto()


@dataclass(frozen=True)
class _CompiledTool:
    """A tool whose arguments are known to have a grammar."""

    name: str
    schema: Schema
    known: list[Parameter] | None
    coerce: bool
    reading: KnownTool


@dataclass(frozen=True)
class Held:
    """What one answer is held to, and how its calls are read while they come."""

    constraint: Constraint
    new_reading: Callable[[], CallReading] | None


def holds_calls(tokenizer: TokenizerWrapper) -> bool:
    """Whether a model's calls can be held to their tools' schemas; else they are only read."""
    return shape_of(tokenizer) is not None and hasattr(tokenizer, "backend_tokenizer")


class ConstraintCompiler:
    """One tokenizer's; used on one thread."""

    @classmethod
    def of(cls, tokenizer: TokenizerWrapper) -> "ConstraintCompiler | None":
        """A compiler; None, said in the log, for a tokenizer of a kind that has no grammars."""
        try:
            return cls(tokenizer)
        except (AttributeError, ValueError, RuntimeError) as error:
            _log.warning("answers_not_constrained", reason=str(error)[:200])
            return None

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._tokenizer = tokenizer
        self.eos_token_ids = frozenset(int(token) for token in tokenizer.eos_token_ids)
        self._ll = LLTokenizer(tokenizer_json(tokenizer), eos_token=sorted(self.eos_token_ids))
        self._words = mask_words(self._ll.vocab_size)
        self._shape = shape_of(tokenizer)
        self._marks = {
            token.content: int(token_id)
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if self._ll.is_special_token(int(token_id))
        }
        self._grammars: OrderedDict[str, LLMatcher | None] = OrderedDict()
        self._tools: OrderedDict[str, _CompiledTool] = OrderedDict()
        if tokenizer.has_tool_calling and self._shape is None:
            _log.warning(
                "tool_calls_not_constrained",
                family=parser_family(tokenizer),
                reason="no grammar for this family's calls: they are read and repaired instead",
            )

    def compile(
        self,
        tools: Sequence[Tool],
        choice: ToolChoice,
        output_schema: Schema | None,
        *,
        in_thinking: bool,
        may_think: bool,
    ) -> Held | None:
        """What the answer is held to; None when it is free.

        Args:
            output_schema: what the text of the answer must be.
            in_thinking: the prompt has opened the thinking block.
            may_think: the answer may begin with thinking.
        """
        if choice.type == "tool":
            tools = [tool for tool in tools if tool.name == choice.name]
        has_calls = bool(tools) and self._shape is not None and choice.type != "none"
        compiled = [self._tool(tool) for tool in tools] if has_calls else []
        single = choice.disable_parallel_tool_use or choice.type == "tool"
        forced = choice.type in ("any", "tool") and bool(compiled)
        if choice.type in ("any", "tool") and tools and not compiled:
            _log.warning("tool_choice_not_enforced", choice=choice.type)
        output = None if output_schema is None or forced else closed(output_schema)
        at_answer = None
        if forced or output is not None:
            at_answer = self._grammar(Begin.AT_ANSWER, compiled, output, single=single)
        at_call = None
        if compiled and at_answer is None:
            at_call = self._grammar(Begin.AT_CALL, compiled, None, single=single)
        plan = self._plan(
            at_answer, at_call, choice, in_thinking=in_thinking, may_think=may_think, single=single
        )
        if plan is None:
            return None
        return Held(Constraint(plan, self._words), self._reading(compiled))

    def _plan(
        self,
        at_answer: LLMatcher | None,
        at_call: LLMatcher | None,
        choice: ToolChoice,
        *,
        in_thinking: bool,
        may_think: bool,
        single: bool,
    ) -> Plan | None:
        start = self._tokens(self._tokenizer.tool_call_start_tokens)
        banned = start if choice.type == "none" and len(start) == 1 else ()
        grammar = at_answer or at_call
        if grammar is None and not banned:
            return None
        at_start = list(self._beginnings(grammar, start))
        think_end = self._tokens(self._tokenizer.think_end_tokens)
        thinking = at_start
        if at_answer is not None and think_end:
            mask = mask_of(at_answer.deep_copy(), self._words)
            thinking = [*at_start, Beginning(think_end, at_answer, mask)]
        think_start = self._tokens(self._tokenizer.think_start_tokens)
        return Plan(
            start=at_answer,
            start_thinking=think_start[0] if may_think and len(think_start) == 1 else None,
            in_thinking=in_thinking and bool(think_end),
            free=at_start if at_answer is None else [],
            thinking=thinking,
            single=single,
            banned=banned,
            ends=sorted(self.eos_token_ids),
        )

    def _beginnings(
        self, grammar: LLMatcher | None, marker: tuple[int, ...]
    ) -> Iterator[Beginning]:
        """A call's start marker, where the grammar knows it."""
        if grammar is None or not marker:
            return
        matcher = grammar.deep_copy()
        if matcher.try_consume_tokens(list(marker)) == len(marker):
            yield Beginning(marker, matcher, mask_of(matcher, self._words))

    @staticmethod
    def _tokens(token_ids: Sequence[int] | None) -> tuple[int, ...]:
        return tuple(map(int, token_ids or ()))

    def _reading(self, tools: Sequence[_CompiledTool]) -> Callable[[], CallReading] | None:
        shape, known = self._shape, [tool.reading for tool in tools]
        return (lambda: CallReading(shape, known)) if shape is not None and known else None

    # Grammars

    def _grammar(
        self, begin: Begin, tools: Sequence[_CompiledTool], output: Schema | None, *, single: bool
    ) -> LLMatcher | None:
        key = _digest(begin.name, [(t.name, t.schema) for t in tools], output, single)
        return _kept(
            self._grammars,
            key,
            KEPT_GRAMMARS,
            lambda: self._compiled(begin, tools, output, single=single),
        )

    def _compiled(
        self, begin: Begin, tools: Sequence[_CompiledTool], output: Schema | None, *, single: bool
    ) -> LLMatcher | None:
        for coerce, schema in _ladder(output):
            text = self._text(begin, tools, schema, coerce=coerce, single=single)
            matcher, error = self._matcher(text)
            if matcher is not None:
                return matcher
            _log.warning("schema_not_expressible", what="the answer's format", reason=error)
        return None

    def _text(
        self,
        begin: Begin,
        tools: Sequence[_CompiledTool],
        output: Schema | None,
        *,
        coerce: bool,
        single: bool,
    ) -> str:
        lark = Lark(self._marks, coerce=coerce)
        options = []
        if tools:
            region = self._region(lark, tools, single=single)
            follows = not single and (begin is Begin.AT_ANSWER or not self._tokenizer.tool_call_end)
            options.append(f'{region} ("\\n"? {region})*' if follows else region)
        if output is not None:
            options.append(lark.coercing(coerce).json(output))
        # What templates write between thinking and answer.
        lead = '("\\n" | "\\n\\n")?' if begin is Begin.AT_ANSWER and self._thinks else ""
        return lark.text(f"{lead} ({' | '.join(options)})")

    @property
    def _thinks(self) -> bool:
        return bool(self._tokenizer.has_thinking)

    def _region(self, lark: Lark, tools: Sequence[_CompiledTool], *, single: bool) -> str:
        """From a start marker to its end marker."""
        shape = self._shape
        assert shape is not None
        rules = [
            call(lark.coercing(tool.coerce), shape, tool.name, tool.schema, tool.known)
            for tool in tools
        ]
        many = "+" if shape.section and not single else ""
        start = lark.literal(self._tokenizer.tool_call_start)
        end = lark.literal(self._tokenizer.tool_call_end or "")
        return lark.rule(f"{start} {calls(lark, shape, rules)}{many} {end}")

    def _matcher(self, text: str) -> tuple[LLMatcher | None, str]:
        matcher = LLMatcher(self._ll, LLMatcher.grammar_from_lark(text), log_level=0)
        error = str(matcher.get_error())
        return (None, error[:200]) if error else (matcher, "")

    # Tools

    def _tool(self, tool: Tool) -> _CompiledTool:
        key = _digest(tool.name, tool.input_schema)
        return _kept(self._tools, key, KEPT_TOOLS, lambda: self._compiled_tool(tool))

    def _compiled_tool(self, tool: Tool) -> _CompiledTool:
        """The tool with the tightest grammar that can be had for its arguments."""
        whole = arguments_schema(tool.input_schema)
        for coerce, schema in (*_ladder(whole), (True, _FREE_OBJECT)):
            compiled = self._try(tool.name, schema or _FREE_OBJECT, coerce=coerce)
            if isinstance(compiled, _CompiledTool):
                return compiled
            # A schema is the client's text; what is wrong with it names keywords.
            _log.warning("schema_not_expressible", what="a tool's arguments", reason=compiled)
        raise AssertionError("an object without properties has a grammar")

    def _try(self, name: str, schema: Schema, *, coerce: bool) -> _CompiledTool | str:
        shape = self._shape
        assert shape is not None
        known = None
        if isinstance(shape, TaggedShape):
            known = parameters(schema, plain_strings=shape.plain_strings)
        lark = Lark(self._marks, coerce=coerce)
        try:
            text = lark.text(call(lark, shape, name, schema, known))
        except NotExpressible as reason:
            return str(reason)
        matcher, error = self._matcher(text)
        if matcher is None:
            return error
        by_name = None if known is None else {parameter.name: parameter for parameter in known}
        checks = {p.name: self._check(p.schema) for p in known or () if needs_check(p)}
        return _CompiledTool(name, schema, known, coerce, KnownTool(name, by_name, checks))

    def _check(self, schema: Schema) -> Callable[[str], bool]:
        lark = Lark(self._marks, coerce=True)
        matcher, _ = self._matcher(lark.text(lark.json(schema)))

        def accepts(text: str) -> bool:
            if matcher is None:
                return True
            trial = matcher.deep_copy()
            tokens = self._ll.tokenize_str(text)
            return trial.try_consume_tokens(tokens) == len(tokens) and bool(trial.is_accepting())

        return accepts


def _ladder(schema: Schema | None) -> Iterator[tuple[bool, Schema | None]]:
    """A schema and its looser forms."""
    yield False, schema
    if schema is not None:
        yield True, schema
        yield True, without_fine_print(schema)


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=False).encode()).hexdigest()


def _kept(kept: OrderedDict[str, Made], key: str, limit: int, make: Callable[[], Made]) -> Made:
    if key not in kept:
        kept[key] = make()
        while len(kept) > limit:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]
