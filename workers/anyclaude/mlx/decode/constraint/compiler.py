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
from llguidance import LLMatcher

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.adapter import TokenizerWrapper, parser_family
from anyclaude.mlx.decode.constraint.grammars import Grammars
from anyclaude.mlx.decode.constraint.lark import Lark
from anyclaude.mlx.decode.constraint.loosening import loosened, loosened_whole
from anyclaude.mlx.decode.constraint.masks import Constraint, Plan, Trigger, mask_of, tokens_of
from anyclaude.mlx.decode.constraint.messages import HEADER_END, HEADER_STARTS, message_rules
from anyclaude.mlx.decode.constraint.reader import ConstrainedCallReader
from anyclaude.mlx.decode.constraint.rules import any_call_rule
from anyclaude.mlx.decode.constraint.schemas import Schema, closed
from anyclaude.mlx.decode.constraint.tools import CompiledTool, ToolCompiler
from anyclaude.mlx.decode.constraint.values import JsonValues
from anyclaude.mlx.decode.constraint.wellformed import Problem, well_formed
from anyclaude.mlx.decode.notation import JsonNotation, Section
from anyclaude.mlx.decode.notations import CONTENT_TYPE, notation_of
from anyclaude.mlx.lru import LRUCache
from anyclaude.runtime.settings import GrammarSettings

_log = structlog.get_logger(__name__)
# What one token may contain behind the end of an end marker.
_LINE_ENDS: Final = '("\\n" | "\\n\\n")?'


class _Start(Enum):
    """The place from which a grammar is active."""

    # The start marker of a call.
    AT_CALL = auto()
    # The first token of the answer, or the first one after its thinking.
    AT_ANSWER = auto()
    # The first token of the answer, whose messages of thinking are part of the grammar.
    AT_THINKING = auto()


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
    def of(
        cls, tokenizer: TokenizerWrapper, limits: GrammarSettings
    ) -> "ConstraintCompiler | None":
        """A compiler; None, with a warning in the log, if llguidance cannot read the tokenizer."""
        try:
            return cls(tokenizer, limits)
        except (AttributeError, ValueError, RuntimeError) as error:
            _log.warning("answers_not_constrained", reason=str(error)[:200])
            return None

    def __init__(
        self,
        tokenizer: TokenizerWrapper,
        limits: GrammarSettings = GrammarSettings(),  # noqa: B008 - frozen
    ) -> None:
        self._tokenizer = tokenizer
        self._grammars = Grammars(tokenizer, limits)
        self.eos_token_ids = self._grammars.eos_token_ids
        self._notation = notation_of(tokenizer)
        # Whether a grammar is active in the header of each message.
        self._has_messages = isinstance(self._notation, JsonNotation) and self._notation.is_message
        if self._has_messages and self._grammars.marker(HEADER_END) is None:
            # The end of a header could not be told from text.
            self._notation, self._has_messages = None, False
        self._tool_compiler = (
            None if self._notation is None else ToolCompiler(self._grammars, self._notation)
        )
        self._matchers: LRUCache[str, LLMatcher | None] = LRUCache(limits.cached_grammars)
        self._tools: LRUCache[str, CompiledTool] = LRUCache(limits.cached_tools)
        # The problems of each tool, by its name.
        self._problems: LRUCache[str, tuple[Problem, ...]] = LRUCache(limits.cached_tools)
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
        output = None if output_schema is None or forced else output_schema
        at_answer = None
        if forced or output is not None:
            start = _Start.AT_THINKING if may_think and self._has_messages else _Start.AT_ANSWER
            at_answer = self._grammar(start, compiled, output, single=single)
        at_call = None
        if compiled and at_answer is None:
            at_call = self._grammar(_Start.AT_CALL, compiled, None, single=single)
        plan = self._plan(
            at_answer, at_call, choice, in_thinking=in_thinking, may_think=may_think, single=single
        )
        if plan is None:
            return None
        return AnswerGrammar(Constraint(plan, self._grammars.words), self._new_reader(compiled))

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
        markers = [self._call_start()[1]]
        if self._has_messages:
            markers = [(token,) for token in self._header_starts()]
        at_start = [one for marker in markers for one in self._triggers(grammar, marker)]
        if self._has_messages and grammar is not None:
            return self._message_plan(grammar, at_start, in_thinking=in_thinking)
        think_end = _tokens(self._tokenizer.think_end_tokens)
        thinking = at_start
        if at_answer is not None and think_end:
            mask = mask_of(at_answer.deep_copy(), self._grammars.words)
            thinking = [*at_start, Trigger(think_end, at_answer, mask)]
        think_start = _tokens(self._tokenizer.think_start_tokens)
        return Plan(
            start=at_answer,
            start_thinking=think_start[0] if may_think and len(think_start) == 1 else None,
            in_thinking=in_thinking and bool(think_end),
            free=at_start if at_answer is None else [],
            thinking=thinking,
            single=single,
            free_when_complete=self._ends_in_text(),
            banned=banned,
            ends=sorted(self.eos_token_ids),
            on_failure=lambda: self._forget(grammar),
        )

    def _message_plan(
        self, grammar: LLMatcher, triggers: Sequence[Trigger], *, in_thinking: bool
    ) -> Plan:
        """The plan of an answer that is made of messages: a call always ends it."""
        return Plan(
            start=grammar,
            start_thinking=None,
            in_thinking=in_thinking,
            free=triggers,
            thinking=triggers,
            single=True,
            header_end=self._grammars.marker(HEADER_END),
            on_failure=lambda: self._forget(grammar),
        )

    def _header_starts(self) -> Iterator[int]:
        for text in HEADER_STARTS:
            if (token := self._grammars.marker(text)) is not None:
                yield token

    def _forget(self, failed: LLMatcher | None) -> None:
        """Compiles a grammar again for the next answer, after llguidance gave up on it in one."""
        for key, matcher in self._matchers.items():
            if matcher is failed:
                self._matchers.discard(key)

    def _call_start(self) -> tuple[str, tuple[int, ...]]:
        """The start marker of calls as the grammar has it, and the tokens that show it.

        If the marker has a token of its own behind other characters, the grammar begins at that
        token, since the other characters may be part of a token before it or behind it.
        """
        text, tokens = (
            self._tokenizer.tool_call_start,
            _tokens(self._tokenizer.tool_call_start_tokens),
        )
        added = self._tokenizer.added_tokens_decoder
        own = next((token for token in tokens if token in added), None)
        if own is None or own == tokens[0]:
            return text, tokens
        return text[text.index(added[own].content) :], (own,)

    def _triggers(self, grammar: LLMatcher | None, marker: tuple[int, ...]) -> Iterator[Trigger]:
        """The start marker of a call as triggers, if the grammar begins with it.

        The last token of a marker in text may contain what follows the marker.
        """
        if grammar is None or not marker:
            return
        *head, last = marker
        matcher = grammar.deep_copy()
        if matcher.try_consume_tokens(head) < len(head):
            return
        end = self._tokenizer.convert_ids_to_tokens(last)
        for token in tokens_of(mask_of(matcher, self._grammars.words)):
            if self._tokenizer.convert_ids_to_tokens(token).startswith(end):
                after = matcher.deep_copy()
                after.consume_token(token)
                yield Trigger((*head, token), after, mask_of(after, self._grammars.words))

    def _new_reader(
        self, tools: Sequence[CompiledTool]
    ) -> Callable[[], ConstrainedCallReader] | None:
        notation, readable = self._notation, [tool.readable for tool in tools]
        if notation is None or not readable:
            return None
        return lambda: ConstrainedCallReader(notation, readable)

    # Grammars

    def _grammar(
        self, start: _Start, tools: list[CompiledTool], output: Schema | None, *, single: bool
    ) -> LLMatcher | None:
        """The grammar of an answer; `tools` gets looser tools if the strict ones do not compile."""
        matcher = self._cached(start, tools, output, single=single)
        for loosen in (self._verified, self._freed):
            if matcher is not None or not tools:
                break
            tools[:] = [loosen(tool) for tool in tools]
            matcher = self._cached(start, tools, output, single=single)
        return matcher

    def _cached(
        self, start: _Start, tools: list[CompiledTool], output: Schema | None, *, single: bool
    ) -> LLMatcher | None:
        key = _digest(start.name, [tool.key for tool in tools], output, single)
        return self._matchers.get_or_make(
            key, lambda: self._compiled(start, tools, output, single=single)
        )

    def _compiled(
        self, start: _Start, tools: Sequence[CompiledTool], output: Schema | None, *, single: bool
    ) -> LLMatcher | None:
        document = None if output is None else self._document(output)
        found = self._grammars.matcher(self._text(start, tools, document, single=single))
        if not isinstance(found, str):
            return found
        _log.warning("grammar_not_compiled", tools=len(tools), reason=found)
        return None

    def _document(self, output: Schema) -> Schema:
        """The strictest form of the answer's format that a grammar can express."""
        found, problems = well_formed(output, max_values=self._grammars.max_enum_values)
        schema = closed(found)
        if self._document_failure(schema):
            schema, problems = loosened(schema, problems, self._document_failure, verify=True)
            schema, problems = loosened_whole(schema, problems, self._document_failure)
        _report("the answer's format", None, problems)
        return schema

    def _document_failure(self, schema: Schema) -> str:
        lark = self._grammars.new()
        return self._grammars.failure(lark.text(JsonValues(lark, schema).rule(schema)))

    def _text(
        self,
        start: _Start,
        tools: Sequence[CompiledTool],
        document: Schema | None,
        *,
        single: bool,
    ) -> str:
        lark = self._grammars.new()
        if self._has_messages:
            return lark.text(self._messages(lark, start, tools, document))
        options = []
        if tools:
            at_answer = start is _Start.AT_ANSWER
            region = self._region(lark, tools, single=single, at_call=not at_answer)
            options.append(region if single else region + self._more(region, at_call=not at_answer))
        if document is not None:
            options.append(JsonValues(lark, document).rule(document))
        # Templates write line ends between the thinking and the answer.
        thinks = start is _Start.AT_ANSWER and self._tokenizer.has_thinking
        lead = '("\\n" | "\\n\\n")?' if thinks else ""
        return lark.text(f"{lead} ({' | '.join(options)})")

    def _messages(
        self, lark: Lark, start: _Start, tools: Sequence[CompiledTool], document: Schema | None
    ) -> str:
        """The rule for a message's header, and for the call or the document behind it."""
        channels = {
            _Start.AT_CALL: ("analysis", "commentary", "final"),
            _Start.AT_THINKING: ("analysis",),
            _Start.AT_ANSWER: (),
        }
        return message_rules(
            lark,
            self._any_call(lark, tools) if tools else "",
            "" if document is None else JsonValues(lark, document).rule(document),
            channels=channels[start],
            content_type=lark.parts(CONTENT_TYPE),
        )

    def _any_call(self, lark: Lark, tools: Sequence[CompiledTool]) -> str:
        notation, compiler = self._notation, self._tool_compiler
        assert notation is not None
        assert compiler is not None
        return any_call_rule(lark, notation, [compiler.rule(tool, lark) for tool in tools])

    def _region(
        self, lark: Lark, tools: Sequence[CompiledTool], *, single: bool, at_call: bool
    ) -> str:
        """The rule for calls from the start marker to the end marker."""
        notation = self._notation
        assert notation is not None
        call, section = self._any_call(lark, tools), notation.section or Section()
        more = f"({lark.literal(section.between)} {call})*" if notation.section else ""
        marker = self._call_start()[0] if at_call else self._tokenizer.tool_call_start
        start = lark.literal(marker + section.before_first)
        end = lark.literal(section.after_last + (self._tokenizer.tool_call_end or ""))
        return lark.rule(f"{start} {call} {'' if single else more} {end}")

    def _ends_in_text(self) -> bool:
        """Whether the end marker of calls is text, whose last token may contain what follows it."""
        return len(_tokens(self._tokenizer.tool_call_end_tokens)) > 1

    def _more(self, region: str, *, at_call: bool) -> str:
        """The rule for what may follow calls, beside what is free."""
        again = f' ("\\n"? {region})*'
        if at_call and self._ends_in_text():
            has_start = self._call_start()[0] == self._tokenizer.tool_call_start
            return f"{again if has_start else ''} {_LINE_ENDS}"
        return "" if at_call and self._tokenizer.tool_call_end else again

    # Tools

    def _tool(self, tool: Tool) -> CompiledTool:
        key = _digest(tool.name, tool.input_schema)
        return self._tools.get_or_make(key, lambda: self._prepared(tool, verify=False))

    def _verified(self, tool: CompiledTool) -> CompiledTool:
        return self._tools.get_or_make(
            f"verified {tool.key}", lambda: self._prepared(tool.source, verify=True)
        )

    def _freed(self, tool: CompiledTool) -> CompiledTool:
        assert self._tool_compiler is not None
        freed = self._tool_compiler.free(tool.source, "all tools together are too large")
        # The log says so once, with the number of tools.
        self._problems.put(tool.source.name, freed.problems)
        return freed

    def _prepared(self, tool: Tool, *, verify: bool) -> CompiledTool:
        assert self._tool_compiler is not None
        prepared = self._tool_compiler.compiled(tool, verify=verify)
        self._note(prepared)
        return prepared

    def _note(self, tool: CompiledTool) -> None:
        """Reports what is not enforced of a tool, unless that was reported before."""
        name = tool.source.name
        if self._problems.get(name) != tool.problems:
            self._problems.put(name, tool.problems)
            _report("a tool's arguments", name, tool.problems)

    @property
    def problems(self) -> dict[str, tuple[Problem, ...]]:
        """What is not enforced of the tools that were offered lately, by tool."""
        return {name: problems for name, problems in self._problems.items() if problems}


def _report(what: str, tool: str | None, problems: Sequence[Problem]) -> None:
    # Names of tools and properties are logged; values, patterns and descriptions are not.
    for problem in problems:
        _log.warning(
            "schema_not_expressible",
            what=what,
            tool=tool,
            property=problem.place,
            reason=problem.cause,
        )


def _tokens(token_ids: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(map(int, token_ids or ()))


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=False).encode()).hexdigest()
