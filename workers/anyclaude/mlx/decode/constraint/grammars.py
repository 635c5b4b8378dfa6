"""Compiles grammars within limits, and tries them out.

llguidance has limits at which it gives up: while it compiles, and at each token. A grammar that
compiles may still reach one later, for example at a pattern of nested repetitions, or turn out to
allow nothing. A trial writes a few random tokens to find that out before an answer depends on it.
"""

import json
import random
from typing import Any, Final

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from anyclaude.mlx.adapter import TokenizerWrapper, tokenizer_json
from anyclaude.mlx.decode.constraint.failures import reason_of
from anyclaude.mlx.decode.constraint.lark import Lark
from anyclaude.mlx.decode.constraint.masks import mask_of, mask_words
from anyclaude.mlx.decode.notation import JsonNotation
from anyclaude.mlx.decode.notations import notation_of
from anyclaude.runtime.settings import GrammarSettings

# Normalizers that change how a character is encoded.
_UNICODE_FORMS: Final = frozenset({"NFC", "NFD", "NFKC", "NFKD"})


class Grammars:
    """Compiles the grammars of one tokenizer."""

    def __init__(self, tokenizer: TokenizerWrapper, limits: GrammarSettings) -> None:
        self._limits = limits
        notation = notation_of(tokenizer)
        self._compact = isinstance(notation, JsonNotation) and notation.compact
        self.max_enum_values = limits.max_enum_values
        self.eos_token_ids = frozenset(int(token) for token in tokenizer.eos_token_ids)
        self._tokenizer = LLTokenizer(
            _without_unicode_forms(tokenizer_json(tokenizer)), eos_token=sorted(self.eos_token_ids)
        )
        self.words = mask_words(self._tokenizer.vocab_size)
        self._markers = {
            token.content: int(token_id)
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if self._tokenizer.is_special_token(int(token_id))
        }
        self._parser_limits = LLParserLimits(
            initial_lexer_fuel=limits.compile_steps,
            step_lexer_fuel=limits.token_steps,
            max_grammar_size=limits.max_symbols,
            max_lexer_states=limits.max_states,
            verbose_errors=False,
        )

    def new(self) -> Lark:
        """A grammar to be written."""
        return Lark(self._markers, compact=self._compact)

    def marker(self, text: str) -> int | None:
        """The token of a marker; None if it has none of its own."""
        return self._markers.get(text)

    def matcher(self, text: str) -> LLMatcher | str:
        """The compiled grammar, or why there is none."""
        grammar = LLMatcher.grammar_from_lark(text)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._parser_limits)
        if not matcher.is_error():
            # The first mask may already reach a limit.
            self._mask(trial := matcher.deep_copy())
            if not trial.is_error():
                return matcher
            matcher = trial
        return reason_of(matcher)

    def failure(self, text: str) -> str:
        """Why a grammar fails when random tokens are written by it; empty if it does not."""
        matcher = self.matcher(text)
        if isinstance(matcher, str):
            return matcher
        choices = random.Random(0)  # noqa: S311 - no secret depends on it
        for _ in range(self._limits.trial_tokens):
            allowed = np.flatnonzero(
                np.unpackbits(self._mask(matcher).view(np.uint8), bitorder="little")
            )
            if matcher.is_error():
                return reason_of(matcher)
            if not len(allowed):
                return "" if matcher.is_stopped() else "no value fits"
            matcher.consume_token(int(choices.choice(allowed)))
            if matcher.is_error():
                return reason_of(matcher)
            if matcher.is_stopped():
                break
        return ""

    def accepts(self, matcher: LLMatcher, text: str) -> bool:
        """Whether `text` is a whole text of the grammar."""
        trial = matcher.deep_copy()
        tokens = self._tokenizer.tokenize_str(text)
        return trial.try_consume_tokens(tokens) == len(tokens) and bool(trial.is_accepting())

    def _mask(self, matcher: LLMatcher) -> Any:
        return mask_of(matcher, self.words)


def _without_unicode_forms(tokenizer: str) -> str:
    """The tokenizer without the normalizers that would change names and values of a schema.

    llguidance encodes a text that only has one continuation, and a normalized text would not fit
    the grammar. Models write any form of a character byte by byte.
    """
    config = json.loads(tokenizer)
    normalizer = config.get("normalizer") or {}
    if normalizer.get("type") in _UNICODE_FORMS:
        config["normalizer"] = None
    elif normalizer.get("type") == "Sequence":
        kept = [n for n in normalizer["normalizers"] if n["type"] not in _UNICODE_FORMS]
        config["normalizer"] = {**normalizer, "normalizers": kept} if kept else None
    else:
        return tokenizer
    return json.dumps(config)
