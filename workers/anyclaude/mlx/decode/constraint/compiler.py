"""Compiles what a request asks for into the grammar of its answer.

Compiling takes tens of milliseconds, so it happens before a request reaches the MLX thread, and the
most recently used grammars are kept.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import structlog
from llguidance import LLMatcher, LLTokenizer

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.adapter import TokenizerWrapper, parser_family, tokenizer_json
from anyclaude.mlx.decode.constraint.lark import Lark
from anyclaude.mlx.decode.constraint.masks import (
    Constraint,
    Plan,
    Trigger,
    mask_of,
    mask_words,
)
from anyclaude.mlx.decode.constraint.parameters import (
    PLAIN_OBJECT,
    Parameter,
    is_ambiguous,
    parameters,
)
from anyclaude.mlx.decode.constraint.reader import ConstrainedCallReader, ReadableTool
from anyclaude.mlx.decode.constraint.rules import any_call_rule, call_rule
from anyclaude.mlx.decode.constraint.schemas import (
    NotExpressibleError,
    Schema,
    arguments_schema,
    closed,
    without_details,
)
from anyclaude.mlx.decode.notations import (
    JsonNotation,
    Section,
    TaggedNotation,
    notation_of,
)
from anyclaude.mlx.lru import LRUCache

_log = structlog.get_logger(__name__)

# How many of each are kept.
_CACHED_GRAMMARS: Final = 16
_CACHED_TOOLS: Final = 512
_FREE_OBJECT: Final[Schema] = {"type": "object"}


class _Start(Enum):
    """The place from which a grammar is active."""

    # The start marker of a call.
    AT_CALL = auto()
    # The first token of the answer, or the first one after its thinking.
    AT_ANSWER = auto()


@dataclass(frozen=True)
class _CompiledTool:
    """A tool, and a schema of its arguments that a grammar can express."""

    name: str
    schema: Schema
    parameters: list[Parameter] | None
    coerce: bool
    readable: ReadableTool


@dataclass(frozen=True)
class AnswerGrammar:
    """What constrains one answer, and the reader for its calls if it may contain any."""

    constraint: Constraint
    new_reader: Callable[[], ConstrainedCallReader] | None


def can_constrain_calls(tokenizer: TokenizerWrapper) -> bool:
    """Whether a model's calls can be constrained to their tools' schemas."""
    return notation_of(tokenizer) is not None and hasattr(tokenizer, "backend_tokenizer")


class ConstraintCompiler:
    """Compiles grammars for one tokenizer. Used on one thread."""

    @classmethod
    def of(cls, tokenizer: TokenizerWrapper) -> "ConstraintCompiler | None":
        """A compiler; None, with a warning in the log, if llguidance cannot read the tokenizer."""
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
        self._notation = notation_of(tokenizer)
        self._markers = {
            token.content: int(token_id)
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if self._ll.is_special_token(int(token_id))
        }
        self._grammars: LRUCache[str, LLMatcher | None] = LRUCache(_CACHED_GRAMMARS)
        self._tools: LRUCache[str, _CompiledTool] = LRUCache(_CACHED_TOOLS)
        if tokenizer.has_tool_calling and self._notation is None:
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
    ) -> AnswerGrammar | None:
        """The grammar of an answer; None if nothing constrains it.

        Args:
            output_schema: the schema that the text of the answer must fit.
            in_thinking: whether the prompt has already opened a thinking block.
            may_think: whether the answer may begin with thinking.
        """
        if choice.type == "tool":
            tools = [tool for tool in tools if tool.name == choice.name]
        has_calls = bool(tools) and self._notation is not None and choice.type != "none"
        compiled = [self._tool(tool) for tool in tools] if has_calls else []
        single = choice.disable_parallel_tool_use or choice.type == "tool"
        forced = choice.type in ("any", "tool") and bool(compiled)
        if choice.type in ("any", "tool") and tools and not compiled:
            _log.warning("tool_choice_not_enforced", choice=choice.type)
        output = None if output_schema is None or forced else closed(output_schema)
        at_answer = None
        if forced or output is not None:
            at_answer = self._grammar(_Start.AT_ANSWER, compiled, output, single=single)
        at_call = None
        if compiled and at_answer is None:
            at_call = self._grammar(_Start.AT_CALL, compiled, None, single=single)
        plan = self._plan(
            at_answer, at_call, choice, in_thinking=in_thinking, may_think=may_think, single=single
        )
        if plan is None:
            return None
        return AnswerGrammar(Constraint(plan, self._words), self._new_reader(compiled))

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
        start = _tokens(self._tokenizer.tool_call_start_tokens)
        banned = start if choice.type == "none" and len(start) == 1 else ()
        grammar = at_answer or at_call
        if grammar is None and not banned:
            return None
        at_start = list(self._triggers(grammar, start))
        think_end = _tokens(self._tokenizer.think_end_tokens)
        thinking = at_start
        if at_answer is not None and think_end:
            mask = mask_of(at_answer.deep_copy(), self._words)
            thinking = [*at_start, Trigger(think_end, at_answer, mask)]
        think_start = _tokens(self._tokenizer.think_start_tokens)
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

    def _triggers(self, grammar: LLMatcher | None, marker: tuple[int, ...]) -> Iterator[Trigger]:
        """The start marker of a call as a trigger, if the grammar begins with it."""
        if grammar is None or not marker:
            return
        matcher = grammar.deep_copy()
        if matcher.try_consume_tokens(list(marker)) == len(marker):
            yield Trigger(marker, matcher, mask_of(matcher, self._words))

    def _new_reader(
        self, tools: Sequence[_CompiledTool]
    ) -> Callable[[], ConstrainedCallReader] | None:
        notation, readable = self._notation, [tool.readable for tool in tools]
        if notation is None or not readable:
            return None
        return lambda: ConstrainedCallReader(notation, readable)

    # Grammars

    def _grammar(
        self, start: _Start, tools: Sequence[_CompiledTool], output: Schema | None, *, single: bool
    ) -> LLMatcher | None:
        key = _digest(start.name, [(t.name, t.schema) for t in tools], output, single)
        return self._grammars.get_or_make(
            key, lambda: self._compiled(start, tools, output, single=single)
        )

    def _compiled(
        self, start: _Start, tools: Sequence[_CompiledTool], output: Schema | None, *, single: bool
    ) -> LLMatcher | None:
        for coerce, schema in _ever_looser(output):
            text = self._text(start, tools, schema, coerce=coerce, single=single)
            matcher, error = self._matcher(text)
            if matcher is not None:
                return matcher
            _log.warning("schema_not_expressible", what="the answer's format", reason=error)
        return None

    def _text(
        self,
        start: _Start,
        tools: Sequence[_CompiledTool],
        output: Schema | None,
        *,
        coerce: bool,
        single: bool,
    ) -> str:
        lark = Lark(self._markers, coerce=coerce)
        options = []
        if tools:
            region = self._region(lark, tools, single=single)
            at_answer = start is _Start.AT_ANSWER
            repeats = not single and (at_answer or not self._tokenizer.tool_call_end)
            options.append(f'{region} ("\\n"? {region})*' if repeats else region)
        if output is not None:
            options.append(lark.coercing(coerce).json(output))
        # Templates write line ends between the thinking and the answer.
        thinks = start is _Start.AT_ANSWER and self._tokenizer.has_thinking
        lead = '("\\n" | "\\n\\n")?' if thinks else ""
        return lark.text(f"{lead} ({' | '.join(options)})")

    def _region(self, lark: Lark, tools: Sequence[_CompiledTool], *, single: bool) -> str:
        """The rule for calls from the start marker to the end marker."""
        notation = self._notation
        assert notation is not None
        rules = [
            call_rule(lark.coercing(tool.coerce), notation, tool.name, tool.schema, tool.parameters)
            for tool in tools
        ]
        call, section = any_call_rule(lark, notation, rules), notation.section or Section()
        more = f"({lark.literal(section.between)} {call})*" if notation.section else ""
        start = lark.literal(self._tokenizer.tool_call_start + section.before_first)
        end = lark.literal(section.after_last + (self._tokenizer.tool_call_end or ""))
        return lark.rule(f"{start} {call} {'' if single else more} {end}")

    def _matcher(self, text: str) -> tuple[LLMatcher | None, str]:
        """The compiled grammar; None and the error if llguidance refuses it."""
        matcher = LLMatcher(self._ll, LLMatcher.grammar_from_lark(text), log_level=0)
        error = str(matcher.get_error())
        return (None, error[:200]) if error else (matcher, "")

    # Tools

    def _tool(self, tool: Tool) -> _CompiledTool:
        key = _digest(tool.name, tool.input_schema)
        return self._tools.get_or_make(key, lambda: self._compiled_tool(tool))

    def _compiled_tool(self, tool: Tool) -> _CompiledTool:
        """The tool with the strictest form of its schema that a grammar can express."""
        whole = arguments_schema(tool.input_schema)
        for coerce, schema in (*_ever_looser(whole), (True, _FREE_OBJECT)):
            schema = schema or _FREE_OBJECT
            known = self._known_arguments(schema)
            compiled = self._try(tool.name, schema, known, coerce=coerce)
            if isinstance(compiled, str) and isinstance(self._notation, JsonNotation):
                # A part of the schema may refer to another part, which only the whole contains.
                compiled = self._try(tool.name, schema, None, coerce=coerce)
            if isinstance(compiled, _CompiledTool):
                return compiled
            # The schema is text of the client and is not logged; the reason names keywords only.
            _log.warning("schema_not_expressible", what="a tool's arguments", reason=compiled)
        raise AssertionError("an object without properties has a grammar")

    def _known_arguments(self, schema: Schema) -> list[Parameter] | None:
        """The arguments one by one, if the notation and the schema let them be."""
        match self._notation:
            case TaggedNotation(plain_strings=plain_strings):
                return parameters(schema, plain_strings=plain_strings, python_words=True)
            case JsonNotation() if schema.keys() <= PLAIN_OBJECT:
                return parameters(schema, plain_strings=False)
        return None

    def _try(
        self, name: str, schema: Schema, known: list[Parameter] | None, *, coerce: bool
    ) -> _CompiledTool | str:
        """The compiled tool, or the reason why there is no grammar for the schema."""
        notation = self._notation
        assert notation is not None
        lark = Lark(self._markers, coerce=coerce)
        try:
            text = lark.text(call_rule(lark, notation, name, schema, known))
        except NotExpressibleError as reason:
            return str(reason)
        matcher, error = self._matcher(text)
        if matcher is None:
            return error
        by_name = None if known is None else {parameter.name: parameter for parameter in known}
        checks = {p.name: self._check(p.schema) for p in known or () if is_ambiguous(p)}
        return _CompiledTool(name, schema, known, coerce, ReadableTool(name, by_name, checks))

    def _check(self, schema: Schema) -> Callable[[str], bool]:
        """A function that says whether a JSON text fits `schema`."""
        lark = Lark(self._markers, coerce=True)
        matcher, _ = self._matcher(lark.text(lark.json(schema)))

        def accepts(text: str) -> bool:
            if matcher is None:
                return True
            trial = matcher.deep_copy()
            tokens = self._ll.tokenize_str(text)
            return trial.try_consume_tokens(tokens) == len(tokens) and bool(trial.is_accepting())

        return accepts


def _ever_looser(schema: Schema | None) -> Iterator[tuple[bool, Schema | None]]:
    """A schema and its looser forms, each with whether the grammar may be looser than it."""
    yield False, schema
    if schema is not None:
        yield True, schema
        yield True, without_details(schema)


def _tokens(token_ids: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(map(int, token_ids or ()))


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=False).encode()).hexdigest()
