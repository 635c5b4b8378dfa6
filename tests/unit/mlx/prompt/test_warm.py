"""A renderer with filled caches gives the same prompts as a new one, with less work."""

import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper

from anyclaude.messages.errors import ApiError
from anyclaude.mlx.prompt import Prompt, PromptRenderer
from anyclaude.mlx.prompt.render_cache import RenderCache
from anyclaude.mlx.tokens import common_prefix
from tests.models.requests import (
    BASH,
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
from tests.models.templates import CHATML, TEMPLATES
from tests.models.tokenizers import byte_level, control_texts, markup_tokens, tokenizer, wrap

_SHORT_DIGEST = 6
_SPECIAL = ("<|im_end|>", "<think>", "</think>", "<tool_response>", "[/INST]", "<|im_", "start|>")
_WORDS = ("read", "the file\n", " ", "tests.", "<b>", "x < y", "naïve 🦊", "\n\n", "", *_SPECIAL)


class _Conversation:
    """Grows and is edited at random, as when users resume, rewind or fork a conversation."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._calls = 0
        self.messages: list[Block] = [user(self._words())]
        self.thinks = rng.random() < 0.5
        self.instructions = "Be helpful."

    def _words(self) -> str:
        return " ".join(self._rng.choices(_WORDS, k=self._rng.randint(1, 6)))

    def change(self) -> None:
        """Adds a turn or two in most cases; otherwise edits any message."""
        roll = self._rng.random()
        if roll < 0.7:
            for _ in range(self._rng.randint(1, 2)):
                self._go_on()
        elif roll < 0.8:
            place = self._rng.randrange(len(self.messages))
            self.messages[place] = self._edited(self.messages[place])
        elif roll < 0.9:
            del self.messages[self._rng.randrange(1, len(self.messages) + 1) :]
            self._ask()
        elif roll < 0.95:
            del self.messages[self._rng.randrange(len(self.messages))]
            self._ask()
        else:
            self.instructions = self._words()
            self.thinks = not self.thinks

    def _ask(self) -> None:
        if not self.messages or self.messages[-1]["role"] != "user":
            self.messages.append(user(self._words()))

    def _edited(self, message: Block) -> Block:
        """The message with another text, or the same text written in another way."""
        if isinstance(message["content"], str):
            return message | {"content": self._rng.choice([self._words(), message["content"]])}
        blocks = list(message["content"])
        place = self._rng.randrange(len(blocks))
        changed = {"text": "text", "thinking": "thinking", "tool_result": "content"}
        if key := changed.get(blocks[place]["type"]):
            blocks[place] = blocks[place] | {key: self._words()}
        blocks[-1] = blocks[-1] | {"cache_control": {"type": "ephemeral"}}
        return message | {"content": blocks}

    def _go_on(self) -> None:
        rng = self._rng
        ids = [f"toolu_{self._calls + i}" for i in range(rng.choice([0, 1, 1, 1, 2]))]
        self._calls += len(ids)
        thoughts = [thinking(self._words())] * (rng.random() < 0.5)
        says = [text(self._words())] * (rng.random() < 0.7 or not ids)
        uses = [call(i, self._words()) for i in ids]
        self.messages.append(assistant(*thoughts, *says, *uses))
        answer = [result(i, self._words(), is_error=rng.random() < 0.1) for i in ids]
        if not ids or rng.random() < 0.2:
            answer.append(text(self._words()))
        self.messages.append(user(*answer))
        if rng.random() < 0.15:
            self.messages.append(system(self._words()))

    def fields(self) -> dict[str, Any]:
        wanted = {"thinking": {"type": "adaptive"}} if self.thinks else {}
        return {"system": self.instructions, "tools": [BASH], **wanted}


def _outcome(renderer: PromptRenderer, conversation: _Conversation) -> object:
    try:
        prompt = renderer.render(request(*conversation.messages, **conversation.fields()))
    except ApiError as error:
        return str(error)
    return prompt.token_ids.tolist(), prompt.cut_points, prompt.stable_tokens


@functools.cache
def _forgetful(family: str) -> PromptRenderer:
    return PromptRenderer(tokenizer(family))


def _forget(renderer: PromptRenderer) -> None:
    renderer._cache.clear()
    renderer._turn_cache.clear()


def _fresh(family: str) -> PromptRenderer:
    """A renderer with empty caches; a new one would only probe the template again."""
    renderer = _forgetful(family)
    _forget(renderer)
    return renderer


@pytest.mark.parametrize("digest_messages", [_SHORT_DIGEST, 32])
@pytest.mark.parametrize("family", sorted(TEMPLATES))
def test_edits_anywhere_give_what_a_whole_run_gives(family: str, digest_messages: int) -> None:
    """Token ids, cut points and stable prefix equal those of a renderer with empty caches."""
    renderer = PromptRenderer(tokenizer(family), digest_messages=digest_messages)

    @given(seed=st.integers(0, 2**32))
    @settings(deadline=None, database=None, max_examples=8)
    def holds(seed: int) -> None:
        rng = random.Random(seed)
        conversations = [_Conversation(rng) for _ in range(2)]
        for _ in range(14):
            conversation = rng.choice(conversations)
            conversation.change()
            expected = _outcome(_fresh(family), conversation)
            assert _outcome(renderer, conversation) == expected

    holds()


class _Counting(TokenizerWrapper):
    """Records how many messages each rendering had."""

    def apply_chat_template(self, *args: Any, **options: Any) -> str:
        self._rendered = [*getattr(self, "_rendered", []), len(args[0])]
        apply: Callable[..., str] = super().apply_chat_template
        return apply(*args, **options)

    def rendered(self) -> list[int]:
        counts, self._rendered = list(self._rendered), []
        return counts


def _loop(turns: int) -> list[Block]:
    """One question and many calls."""
    messages = [user("go")]
    for turn in range(turns):
        messages += [assistant("so", call(f"t{turn}")), user(result(f"t{turn}", "<|im_end|>"))]
    return messages


@pytest.mark.parametrize("family", ["chatml", "glm", "gpt_oss", "llama3", "qwen3", "qwen3_5"])
def test_a_long_conversation_is_rendered_by_its_digest(family: str) -> None:
    """A turn of a long tool loop renders only as many messages as a digest may have."""
    tokens = _Counting(tokenizer(family)._tokenizer)
    renderer = PromptRenderer(tokens, digest_messages=12)
    for turns in range(20, 40):
        renderer.render(request(*_loop(turns), system="S", tools=[BASH]))
        if turns > 20:
            assert max(tokens.rendered()) <= 14
        else:
            tokens.rendered()


def _renderer(template: str) -> PromptRenderer:
    special = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")
    wrapper = wrap(byte_level(), template, special, markup_tokens("chatml"))
    return PromptRenderer(wrapper, digest_messages=_SHORT_DIGEST)


_ODD = {
    "counts all messages first": "{{- messages | length -}}" + CHATML,
    "counts all messages last": CHATML + "{{- messages | length -}}",
    "numbers its messages": CHATML.replace("message.role ~ '\\n'", "loop.index ~ '\\n'"),
    "drops all but the last answers": CHATML.replace(
        "message.content ~ calls", "('' if loop.revindex > 6 else message.content) ~ calls"
    ),
    "marks thinking since the last answer": CHATML.replace(
        "message.reasoning_content -%}",
        "message.reasoning_content and (messages[loop.index0:] | selectattr('role', 'equalto',"
        " 'assistant') | rejectattr('tool_calls') | list | length) == 0 -%}",
    ),
}


@pytest.mark.parametrize("odd", _ODD)
def test_templates_that_look_ahead_are_rendered_whole(odd: str) -> None:
    """If earlier text depends on later messages, the ids are still those of a whole rendering."""
    renderer, whole = _renderer(_ODD[odd]), _renderer(_ODD[odd])
    # As if the trial had found nothing: what is checked in every request has to hold alone.
    renderer._can_continue = True
    for seed in range(4):
        conversation = _Conversation(random.Random(seed))
        for _ in range(12):
            conversation.change()
            _forget(whole)
            assert _outcome(renderer, conversation) == _outcome(whole, conversation)


def test_the_trial_finds_templates_that_no_digest_stands_for() -> None:
    """A template that changes its behaviour at the ninth message is always rendered whole."""
    template = CHATML.replace("message.role ~ '\\n'", "message.role ~ '!' * (loop.index // 9)")
    assert template != CHATML
    assert not _renderer(template)._can_continue
    assert _renderer(CHATML)._can_continue


def _loops(renderer: PromptRenderer) -> list[Prompt]:
    return [renderer.render(request(*_loop(turns), system="S")) for turns in range(1, 12)]


def test_memory_is_bounded() -> None:
    """Without any cache memory every prompt is rendered whole, and is the same."""
    bounded = PromptRenderer(tokenizer("qwen3"))
    bounded._cache, bounded._turn_cache = RenderCache(0), RenderCache(0)
    for one, other in zip(_loops(bounded), _loops(_fresh("qwen3")), strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()
    assert not len(bounded._cache) + len(bounded._turn_cache)


def test_a_conversation_that_goes_on_is_kept_once() -> None:
    """A prompt replaces the cached prompt that it continues, while a fork is kept beside it."""
    renderer = _fresh("qwen3")
    _loops(renderer)
    assert len(renderer._cache) == 1
    prompt = renderer.render(request(*_loop(3), assistant("done"), user("fork"), system="S"))
    assert len(renderer._cache) == 2
    before = renderer.render(request(*_loop(3), system="S"))
    assert common_prefix(prompt.token_ids, before.token_ids) >= before.cut_points[-1]


@pytest.mark.parametrize(
    "other", [{"b": 1, "a": 2}, {"a": 2, "b": True}, {"a": 2.0, "b": 1}, {"a": "2", "b": 1}]
)
def test_arguments_that_only_read_differently_are_an_edit(other: dict[str, object]) -> None:
    """Another order of keys or type of a number is printed differently, so it counts as an edit."""

    def ids(renderer: PromptRenderer, arguments: dict[str, object], *more: Block) -> list[int]:
        use = {"type": "tool_use", "id": "t", "name": "Bash", "input": arguments}
        prompt = renderer.render(request(user("go"), assistant(use), user(result("t")), *more))
        return prompt.token_ids.tolist()

    renderer = PromptRenderer(tokenizer("qwen3"))
    ids(renderer, {"a": 2, "b": 1})
    more = (assistant("done"), user("on"))
    assert ids(renderer, other, *more) == ids(_fresh("qwen3"), other, *more)


def test_control_texts_are_those_the_edits_use() -> None:
    """The special texts of the random edits are control tokens of some template."""
    known = {spelled for family in TEMPLATES for spelled in control_texts(family)}
    assert len(known & set(_SPECIAL)) >= 5
