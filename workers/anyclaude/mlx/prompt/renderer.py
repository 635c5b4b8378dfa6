"""Turns a Messages request into token ids, with the points where the prompt may be cut."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

from anyclaude.messages.context_edits import ALL_TURNS, apply_edits, kept_thinking_turns
from anyclaude.messages.errors import invalid_request
from anyclaude.messages.requests import CountTokensRequest, Message
from anyclaude.mlx.adapter import TokenizerWrapper, template_source
from anyclaude.mlx.lru import LRUCache
from anyclaude.mlx.prompt.canonical import (
    Conversation,
    TemplateMessage,
    TurnCache,
    canonicalise,
    translated,
    wants_thinking,
)
from anyclaude.mlx.prompt.continuation import DIGEST_MESSAGES, Continuation, Rendering
from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.prompt.cuts import Cut, last_cut, learn_turns
from anyclaude.mlx.prompt.dates import DATES_FILE, PinnedDates
from anyclaude.mlx.prompt.dialect import AdaptedMessages, ConversationAdapter
from anyclaude.mlx.prompt.kept_answers import digest
from anyclaude.mlx.prompt.pieces import Encoded, PieceEncoder, shared_characters
from anyclaude.mlx.prompt.probe import (
    TRIAL_DIGEST_MESSAGES,
    answers_in_parts,
    can_continue,
    find_dialect,
    shows_where_answers_begin,
    tools_move,
    turns_rendered,
)
from anyclaude.mlx.prompt.render_cache import Entry, RenderCache, exact_bytes
from anyclaude.mlx.prompt.splice import AnswerPosition, SplicedTurns
from anyclaude.mlx.prompt.stored_folder import StoredFolder
from anyclaude.mlx.prompt.template import Template, TemplateRefused, Variables
from anyclaude.mlx.tokens import TokenArray, common_prefix
from anyclaude.worker.v1.worker_pb2 import AppliedEdit

_CACHED_STARTS: Final = 32
_CACHE_BYTES: Final = 64 * 1024 * 1024
_PIECE_BYTES: Final = 200
# Two first messages that differ from the first character on.
_FIRST_TEXTS: Final = ("A", "B")


@dataclass(frozen=True, eq=False)
class Prompt:
    token_ids: TokenArray
    # The ends of the stable prefix and of every message, as strictly increasing token offsets,
    # without the start and the end of the prompt.
    cut_points: tuple[int, ...]
    # The length of the stable prefix: tools and instructions, which all new conversations share.
    # 0 if there are none.
    stable_tokens: int
    # The position of the answer in later prompts; None if answers are not spliced.
    answer_position: AnswerPosition | None = None
    # The context edits of the request that were applied.
    applied_edits: tuple[AppliedEdit, ...] = ()


@dataclass(frozen=True, eq=False)
class _Start:
    """The part that all conversations with the same tools and instructions share."""

    # Stands for it where conversations are compared.
    digest: bytes
    variables: Variables
    tools: list[dict[str, Any]]
    # The rendered text up to the text of the first user message.
    text: str


@dataclass(frozen=True, eq=False)
class _Rendered:
    """A prompt with the intermediate results from which a longer prompt can be made."""

    rendering: Rendering
    encoded: Encoded
    cuts: list[Cut]

    @property
    def nbytes(self) -> int:
        """An estimate of its memory: the messages, the text, its pieces and the token ids."""
        pieces = _PIECE_BYTES * len(self.encoded.pieces)
        return 3 * sys.getsizeof(self.encoded.text) + self.encoded.token_ids.nbytes + pieces


class PromptRenderer:
    """Renders requests for one model.

    The constructor finds out what the model's template accepts. Requests are rendered from cached
    parts of earlier ones; the result does not depend on the caches.
    """

    def __init__(
        self,
        tokenizer: TokenizerWrapper,
        *,
        digest_messages: int = DIGEST_MESSAGES,
        spliced_bytes: int = 0,
        spliced_on_request: bool = False,
        stored: StoredFolder | None = None,
        clock: Callable[[], date] = date.today,
    ) -> None:
        """Finds out what the template accepts.

        `spliced_bytes` limits the answers that later prompts repeat in the model's own tokens; 0
        keeps none, and with `spliced_on_request` only requests that ask to keep all thinking
        repeat them. With `stored`, answers and dates survive a restart. Templates that write the
        date read `clock`.

        Raises:
            ValueError: the model has no chat template.
        """
        added = tokenizer.added_tokens_decoder.values()
        self._control = ControlTokens(added, avoid=template_source(tokenizer))
        self._template = Template(tokenizer, self._control)
        self._encoder = PieceEncoder(tokenizer, self._control)
        self._can_think = bool(tokenizer.has_thinking)
        self._think_start = tokenizer.think_start or ""
        self._dialect = find_dialect(self._template)
        if tools_move(self._template, self._dialect):
            self._template.pin_tools()
        rendered = turns_rendered(self._template, self._dialect)
        self._turns = learn_turns(self._control, rendered, tokenizer.think_end)
        self._continuation = self._new_continuation(digest_messages)
        self._can_continue = can_continue(
            self._new_continuation(TRIAL_DIGEST_MESSAGES), self._dialect
        )
        self._turn_cache = TurnCache(_CACHE_BYTES)
        self._adapter = ConversationAdapter(self._dialect, _CACHE_BYTES)
        # Entries are grouped by the start of the conversation.
        self._cache: RenderCache[_Rendered] = RenderCache(_CACHE_BYTES)
        splices = spliced_bytes and shows_where_answers_begin(
            self._template, self._dialect, self._control, self._turns
        )
        self._spliced = self._new_spliced(spliced_bytes, stored) if splices else None
        self._spliced_on_request = spliced_on_request
        self._dates = PinnedDates(stored, clock) if self._template.reads_clock else None
        self._starts: LRUCache[bytes, _Start] = LRUCache(_CACHED_STARTS)
        if stored is not None:
            self._restore(stored)

    def _restore(self, stored: StoredFolder) -> None:
        for name, content in stored.load():
            try:
                if name == DATES_FILE and self._dates is not None:
                    self._dates.restore(content)
                elif name != DATES_FILE and self._spliced is not None:
                    self._spliced.restore(name, content)
            except (ValueError, TypeError, AttributeError) as error:
                stored.reject(name, str(error))

    def _new_spliced(self, limit_bytes: int, stored: StoredFolder | None) -> SplicedTurns:
        openers = self._encoder.control_ids(self._turns.openers - self._turns.closers)
        in_parts = answers_in_parts(self._template, self._dialect, self._control, self._turns)
        return SplicedTurns(
            limit_bytes,
            openers,
            stored,
            in_parts=in_parts,
            think_start=self._think_start,
        )

    @property
    def spliced(self) -> SplicedTurns | None:
        """The answers that later prompts repeat; None if there are none."""
        return self._spliced

    def _new_continuation(self, digest_messages: int) -> Continuation:
        return Continuation(self._template, self._control, self._turns, digest_messages)

    def render(self, request: CountTokensRequest, *, counting: bool = False) -> Prompt:
        """The prompt of a request, which is only counted with `counting`.

        Claude Code asks for less when it counts than when it sends, so kept answers are then
        repeated unless the request clears thinking.

        Raises:
            ApiError: 400 that names what the model or its template cannot accept.
        """
        thinking, spliced = self._thinks(request), self._spliced_for(request, counting=counting)

        def prompt(edited: CountTokensRequest) -> Prompt:
            return self._render(canonicalise(edited, self._turn_cache), thinking, spliced)

        try:
            edited = apply_edits(request, lambda each: len(prompt(each).token_ids))
            return replace(prompt(edited.request), applied_edits=edited.applied)
        except TemplateRefused as refusal:
            raise invalid_request(
                f"messages: the model's chat template refuses the conversation: {refusal} "
                "(start with a user message, then take turns), or choose another model."
            ) from refusal

    def before_next_question(self, request: CountTokensRequest, answer: Message) -> Prompt | None:
        """The tokens with which every prompt begins that asks a next question after an answer.

        Two questions that differ from the first character on are rendered, and what both prompts
        share is returned. Nothing of them stays in the caches of the renderer. `answer` is what
        the client will send back. None if the template refuses the conversation.
        """
        question = Message(role="user", content=_FIRST_TEXTS[0])
        asked = request.model_copy(update={"messages": [*request.messages, answer, question]})
        thinking, spliced = self._thinks(request), self._spliced_for(request)

        def prompt(conversation: Conversation) -> Prompt:
            return self._render(conversation, thinking, spliced, remember=False)

        try:
            edited = apply_edits(
                asked, lambda each: len(prompt(canonicalise(each, self._turn_cache)).token_ids)
            )
            conversation = canonicalise(edited.request, self._turn_cache)
            first, second = (
                prompt(replace(conversation, messages=(*conversation.messages[:-1], _user(text))))
                for text in _FIRST_TEXTS
            )
        except TemplateRefused:
            return None
        shared = common_prefix(first.token_ids, second.token_ids)
        cut_points = tuple(cut for cut in first.cut_points if cut < shared)
        return Prompt(first.token_ids[:shared], cut_points, min(first.stable_tokens, shared))

    def _thinks(self, request: CountTokensRequest) -> bool:
        return self._can_think and wants_thinking(request)

    def _spliced_for(
        self, request: CountTokensRequest, *, counting: bool = False
    ) -> SplicedTurns | None:
        turns = kept_thinking_turns(request)
        keeps_all = turns == ALL_TURNS or (counting and turns is None)
        return self._spliced if keeps_all or not self._spliced_on_request else None

    def _render(
        self,
        conversation: Conversation,
        thinking: bool,
        spliced: SplicedTurns | None,
        *,
        remember: bool = True,
    ) -> Prompt:
        adapted = self._adapter.adapted(conversation)
        start = self._start(conversation, thinking)
        _, known = self._cache.find(start, adapted.exact)
        before = known.value if known else None
        rendering = self._rendering(before, adapted, start)
        encoded = self._encoder.encode(rendering.text, before.encoded if before else None)
        cuts = self._turns.cuts(encoded, before.cuts if before else ())
        if remember:
            rendered = _Rendered(rendering, encoded, cuts)
            self._cache.add(Entry(start, adapted.exact, rendered, rendered.nbytes))
        total = len(encoded.token_ids)
        inner = cuts[:-1] if cuts and cuts[-1].tokens == total else cuts
        stable_tokens = 0
        if conversation.leading or conversation.tools:
            shared = shared_characters(start.text, rendering.text)
            stable_tokens = last_cut(inner, encoded, shared)
        cut_points = tuple(sorted({stable_tokens, *(cut.tokens for cut in inner)} - {0}))
        if spliced is None or _is_unfinished(adapted.messages):
            return Prompt(encoded.token_ids, cut_points, stable_tokens)
        items = [digest(message) for message in adapted.exact]
        roles = [message["role"] for message in adapted.messages]
        position = spliced.position(
            start.digest, items, roles, encoded, cuts, cut_points, stable_tokens
        )
        return Prompt(position.token_ids, position.cut_points, stable_tokens, position)

    def keep_answer(self, position: AnswerPosition, generated: TokenArray, answer: Message) -> None:
        """Keeps the tokens of an answer for later prompts that contain it.

        `generated` includes the end-of-turn token; `answer` is what the client will send back.
        """
        messages = self._dialect.adapt(Conversation((), translated(answer), ()))
        # In some dialects the place of several calls depends on their results.
        calls = [message for message in messages if "tool_calls" in message]
        if self._spliced is not None and len(calls) < 2:
            self._spliced.keep(position, generated, [digest(exact_bytes(m)) for m in messages])

    def _rendering(
        self, before: _Rendered | None, adapted: AdaptedMessages, start: _Start
    ) -> Rendering:
        if _is_unfinished(adapted.messages):
            text = self._template.render(
                adapted.messages, start.tools, variables=start.variables, unfinished=True
            )
            return Rendering(adapted.exact, text, [], "")
        if before is not None and self._can_continue:
            continued = self._continuation.continued(
                before.rendering, adapted, start.tools, start.variables
            )
            if continued is not None:
                return continued
        return self._continuation.whole(adapted, start.tools, start.variables)

    def _start(self, conversation: Conversation, thinking: bool) -> _Start:
        key = digest(exact_bytes((thinking, conversation.leading, conversation.tools)))
        if self._dates is None:
            variables = Variables(thinking)
        else:
            variables = Variables(thinking, self._dates.of(key, conversation.messages))
            key = digest(key + str(variables.today).encode())
        return self._starts.get_or_make(key, lambda: self._make_start(key, conversation, variables))

    def _make_start(self, key: bytes, conversation: Conversation, variables: Variables) -> _Start:
        turns = [
            self._dialect.adapt(replace(conversation, messages=(_user(text),)))
            for text in _FIRST_TEXTS
        ]
        tools = self._template.printable_tools(conversation.tools, turns[0], variables)
        first, second = (self._template.render(turn, tools, variables=variables) for turn in turns)
        return _Start(key, variables, tools, first[: shared_characters(first, second)])


def _is_unfinished(messages: Sequence[TemplateMessage]) -> bool:
    """Whether the client wrote the beginning of the answer; a call waits for its result instead."""
    return messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]


def _user(text: str) -> TemplateMessage:
    return {"role": "user", "content": text}
