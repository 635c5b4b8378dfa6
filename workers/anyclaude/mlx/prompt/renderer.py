"""From a Messages request to token ids with the places where they may be cut."""

import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from anyclaude.messages.errors import invalid_request
from anyclaude.messages.requests import CountTokensRequest, Message
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.prompt.canonical import (
    Conversation,
    TemplateMessage,
    TurnMemory,
    canonicalise,
    translated,
)
from anyclaude.mlx.prompt.compare import exact_bytes, shared_characters
from anyclaude.mlx.prompt.continuation import (
    DIGEST_MESSAGES,
    Continuation,
    Rendering,
    Shaped,
)
from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.prompt.cuts import Cut, last_cut, learn_turns
from anyclaude.mlx.prompt.pieces import Encoded, PieceEncoder
from anyclaude.mlx.prompt.probe import find_dialect, turns_rendered
from anyclaude.mlx.prompt.render_cache import Lately, Made
from anyclaude.mlx.prompt.shaping import Shaping
from anyclaude.mlx.prompt.splice import Place, SplicedTurns
from anyclaude.mlx.prompt.template import (
    Template,
    TemplateRefused,
    template_source,
)
from anyclaude.mlx.prompt.trial import TRIAL_DIGEST_MESSAGES, can_continue
from anyclaude.mlx.tokens import TokenArray

_REMEMBERED_STARTS: Final = 32
_REMEMBERED_BYTES: Final = 64 * 1024 * 1024
_PIECE_BYTES: Final = 200
# First words that differ from the first character on.
_FIRST_WORDS: Final = ("A", "B")


@dataclass(frozen=True, eq=False)
class Prompt:
    token_ids: TokenArray
    # Strictly increasing token offsets within the prompt, neither its start nor its end: the
    # ends of the stable prefix and of every message.
    marks: tuple[int, ...]
    # Tokens of tools and instructions, which every new conversation shares; 0 if there are none.
    stable_tokens: int
    # Where the answer will stand; None where answers are not spliced.
    place: Place | None = None


@dataclass(frozen=True, eq=False)
class _Start:
    """What conversations with the same tools and instructions have in common."""

    tools: list[dict[str, Any]]
    # Text of the rendering up to the first user's words.
    text: str


@dataclass(frozen=True, eq=False)
class _Rendered:
    """A prompt as it was made."""

    rendering: Rendering
    encoded: Encoded
    cuts: list[Cut]

    @property
    def nbytes(self) -> int:
        """About what it holds: the messages, the text, its pieces and the token ids."""
        pieces = _PIECE_BYTES * len(self.encoded.pieces)
        return 3 * sys.getsizeof(self.encoded.text) + self.encoded.token_ids.nbytes + pieces


class PromptRenderer:
    """Renders requests for one model; what the model's template takes is found out at the start."""

    def __init__(
        self,
        tokenizer: TokenizerWrapper,
        *,
        digest_messages: int = DIGEST_MESSAGES,
        spliced_bytes: int = 0,
    ) -> None:
        """
        Args:
            digest_messages: as for `Continuation`.
            spliced_bytes: for answers that are put back as the model wrote them; 0 keeps none.

        Raises:
            ValueError: the model has no chat template.
        """
        added = tokenizer.added_tokens_decoder.values()
        self._control = ControlTokens(added, avoid=template_source(tokenizer))
        self._template = Template(tokenizer, self._control)
        self._encoder = PieceEncoder(tokenizer, self._control)
        self._can_think = bool(tokenizer.has_thinking)
        self._dialect = find_dialect(self._template)
        rendered = turns_rendered(self._template, self._dialect)
        self._turns = learn_turns(self._control, rendered)
        self._continuation = self._new_continuation(digest_messages)
        self._can_continue = can_continue(
            self._new_continuation(TRIAL_DIGEST_MESSAGES), self._dialect
        )
        self._turn_memory = TurnMemory(_REMEMBERED_BYTES)
        self._shaping = Shaping(self._dialect, _REMEMBERED_BYTES)
        # Grouped by their start.
        self._memory: Lately[_Rendered] = Lately(_REMEMBERED_BYTES)
        self._spliced = SplicedTurns(spliced_bytes) if spliced_bytes else None
        self._starts: OrderedDict[bytes, _Start] = OrderedDict()
        self._lock = threading.Lock()

    def _new_continuation(self, digest_messages: int) -> Continuation:
        return Continuation(self._template, self._control, self._turns, digest_messages)

    def render(self, request: CountTokensRequest) -> Prompt:
        """The prompt of a request.

        Raises:
            ApiError: 400 naming what a local text model, or this model's template, cannot take.
        """
        conversation = canonicalise(request, self._turn_memory)
        thinking = self._can_think and _wants_thinking(request)
        try:
            return self._render(conversation, thinking)
        except TemplateRefused as refusal:
            raise invalid_request(
                f"messages: the model's chat template refuses the conversation: {refusal} "
                "(start with a user message, then take turns), or choose another model."
            ) from refusal

    def _render(self, conversation: Conversation, thinking: bool) -> Prompt:
        shaped = self._shaping.shaped(conversation)
        start = self._start(conversation, thinking)
        _, known = self._memory.find(start, shaped.exact)
        before = known.value if known else None
        rendering = self._rendering(before, shaped, start, thinking)
        encoded = self._encoder.encode(rendering.text, before.encoded if before else None)
        cuts = self._turns.cuts(encoded, before.cuts if before else ())
        rendered = _Rendered(rendering, encoded, cuts)
        self._memory.add(Made(start, shaped.exact, rendered, rendered.nbytes))
        total = len(encoded.token_ids)
        inner = cuts[:-1] if cuts and cuts[-1].tokens == total else cuts
        stable_tokens = 0
        if conversation.leading or conversation.tools:
            shared = self._shared_characters(conversation, thinking, start, rendering.text)
            stable_tokens = last_cut(inner, encoded, shared)
        marks = tuple(sorted({stable_tokens, *(cut.tokens for cut in inner)} - {0}))
        if self._spliced is None or _is_unfinished(shaped.messages):
            return Prompt(encoded.token_ids, marks, stable_tokens)
        place = self._spliced.place(start, shaped.exact, encoded, cuts, marks, stable_tokens)
        return Prompt(place.token_ids, place.marks, stable_tokens, place)

    def keep_answer(self, place: Place, generated: TokenArray, answer: Message) -> None:
        """Keeps the tokens of an answer for the prompts that will hold it.

        Args:
            place: of the prompt that was answered.
            generated: all tokens of the answer, the end-of-turn token last.
            answer: as its client will send it back.
        """
        shaped = self._dialect.shape(Conversation((), translated(answer), ()))
        # Some templates take a call and its result in turns of their own.
        if self._spliced is not None and len(shaped) == 1:
            self._spliced.keep(place, generated, exact_bytes(shaped[0]))

    def _rendering(
        self,
        before: _Rendered | None,
        shaped: Shaped,
        start: _Start,
        thinking: bool,
    ) -> Rendering:
        if _is_unfinished(shaped.messages):
            text = self._template.render(
                shaped.messages, start.tools, thinking=thinking, unfinished=True
            )
            return Rendering(shaped.exact, text, [], "")
        if before is not None and self._can_continue:
            going_on = self._continuation.continued(before.rendering, shaped, start.tools, thinking)
            if going_on is not None:
                return going_on
        return self._continuation.whole(shaped, start.tools, thinking)

    def _shared_characters(
        self, conversation: Conversation, thinking: bool, start: _Start, text: str
    ) -> int:
        """How much of `text` every conversation with the same start has."""
        if text.startswith(start.text):
            return len(start.text)
        # The template wrote something else than last time, such as another date.
        start = self._make_start(conversation, thinking)
        return shared_characters(start.text, text)

    def _start(self, conversation: Conversation, thinking: bool) -> _Start:
        key = _start_key(conversation, thinking)
        with self._lock:
            if key in self._starts:
                self._starts.move_to_end(key)
                return self._starts[key]
        return self._make_start(conversation, thinking)

    def _make_start(self, conversation: Conversation, thinking: bool) -> _Start:
        tools = self._template.protected_tools(conversation.tools)
        first, second = (
            self._template.render(
                self._dialect.shape(replace(conversation, messages=(_user(words),))),
                tools,
                thinking=thinking,
            )
            for words in _FIRST_WORDS
        )
        start = _Start(tools, first[: shared_characters(first, second)])
        with self._lock:
            self._starts[_start_key(conversation, thinking)] = start
            if len(self._starts) > _REMEMBERED_STARTS:
                self._starts.popitem(last=False)
        return start


def _wants_thinking(request: CountTokensRequest) -> bool:
    return (request.thinking or {}).get("type") in ("adaptive", "enabled")


def _is_unfinished(messages: Sequence[TemplateMessage]) -> bool:
    """Whether the client began the answer itself; a call waits for its result instead."""
    return messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]


def _start_key(conversation: Conversation, thinking: bool) -> bytes:
    return exact_bytes((thinking, conversation.leading, conversation.tools))


def _user(words: str) -> TemplateMessage:
    return {"role": "user", "content": words}
