"""A conversation with a simulated model, and how much of each prompt a cache already holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Any, Final

import numpy as np

from anyclaude.messages.requests import Message
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.prompt import Prompt, PromptRenderer
from anyclaude.mlx.prompt.canonical import canonicalise
from anyclaude.mlx.prompt.pieces import shared_characters
from anyclaude.mlx.tokens import TokenArray
from tests.models.requests import Block, request
from tests.real.families import Family

# The header of an answer has no more pieces of text and control tokens.
_HEADER_PIECES: Final = 25


class Model:
    """A model that writes exactly what its template writes for the newest answer."""

    def __init__(
        self, renderer: PromptRenderer, tokenizer: TokenizerWrapper, family: Family
    ) -> None:
        self._family = family
        self._tokenizer = tokenizer
        # The parts of the renderer, since a model sees what the renderer makes of a conversation.
        self.control = renderer._control
        self.dialect = renderer._dialect
        self._start = renderer._start
        self._template = renderer._template
        self._encoder = renderer._encoder

    def answer(self, messages: Sequence[Block], answer: Block, **fields: Any) -> TokenArray:
        """The tokens of `answer` after the prompt of `messages`, with the one that ends it."""
        return self._encoder.encode(self.written(messages, answer, **fields)).token_ids

    def encode(self, protected: str) -> list[int]:
        return [int(token) for token in self._encoder.encode(protected).token_ids]

    def written(self, messages: Sequence[Block], answer: Block, **fields: Any) -> str:
        """The protected text of `answer`, with the token that ends it."""
        prompt = self._text(messages, True, **fields)
        whole = self._text([*messages, answer], False, **fields)
        shared = self._shared(prompt, whole)
        if len(self.control.split(prompt[shared:])) > _HEADER_PIECES:
            # The template renders history anew behind this answer, so no text of it was added.
            return self.written(messages[:1], answer, **fields)
        written = whole[shared:]
        end = self._family.ends[0 if answer["content"][-1]["type"] == "tool_use" else 1]
        written = written.rpartition(end)[0] if end in written else written
        # The template may end every turn with the other token, where the model writes its own.
        written = written.rstrip().removesuffix(self._family.ends[1])
        opened = self._tokenizer.think_start
        if opened and prompt.rstrip().endswith(opened):
            closed = self._tokenizer.think_end
            # The template would not print the end of the thinking that the prompt began.
            written = written if closed in written else f"{closed}\n\n{written}"
        return f"{written.rstrip()}{end}"

    def _shared(self, prompt: str, whole: str) -> int:
        """The length of the prompt that `whole` repeats, up to the start of a token."""
        common = shared_characters(prompt, whole)
        splits = (self.control.split(text) for text in (prompt, whole))
        ends = chain.from_iterable(accumulate(map(len, pieces), initial=0) for pieces in splits)
        return max(end for end in ends if end <= common)

    def _text(self, messages: Sequence[Block], answer: bool, **fields: Any) -> str:
        conversation = canonicalise(request(*messages, **fields))
        start = self._start(conversation, True)
        adapted = self.dialect.adapt(conversation)
        return self._template.render(adapted, start.tools, variables=start.variables, answer=answer)


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
