"""Answers in the model's own tokens: prompts that only grow, and plain rendering elsewhere."""

import functools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from anyclaude.messages.requests import Message
from anyclaude.mlx.prompt import Prompt, PromptRenderer
from anyclaude.mlx.tokens import TokenArray, token_array
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
from tests.models.templates import TEMPLATES
from tests.models.tokenizers import EOS, tokenizer

_BYTES = 1 << 26
# Templates in which the place of an answer shows: by the token that ends it, or by the next turn's.
# Those like Mistral's open a turn in the middle of an answer that has both text and a call.
_SPLICED = ["chatml", "gemma4", "glm", "llama3", "qwen3", "qwen3_5", "qwen3_coder"]
# The tokens that end an answer: one with a call, and one without.
_TURN_ENDS = {
    "gemma4": ("<|tool_response>", "<turn|>"),
    "glm": ("<|observation|>", "<|user|>"),
    "gpt_oss": ("<|end|>", "<|end|>"),
    "llama3": ("<|eot_id|>", "<|eot_id|>"),
    "mistral": ("</s>", "</s>"),
    "mistral_small": ("</s>", "</s>"),
}
_WORDS = (
    "read",
    "the file",
    "<|im_end|>",
    "<|eot_id|>",
    "{'b': True}",
    "naïve 🦊",
    "</think>",
    "\n",
)


@functools.cache
def _plain(family: str) -> PromptRenderer:
    return PromptRenderer(tokenizer(family))


@functools.cache
def _splicing(family: str) -> PromptRenderer:
    """One for all conversations, since finding out what a template accepts takes long."""
    return PromptRenderer(tokenizer(family), spliced_bytes=_BYTES)


def _end(family: str, message: Block) -> int:
    """The token with which the family's models end this answer."""
    is_call = message["content"][-1]["type"] == "tool_use"
    with_call, without = _TURN_ENDS.get(family, ("<|im_end|>", "<|im_end|>"))
    return int(tokenizer(family).get_vocab()[with_call if is_call else without])


class _Talk:
    """A conversation with random answers: their positions do not depend on their tokens.

    It begins with its subject, so that it shares no answer with a conversation of another test.
    """

    def __init__(self, family: str, seed: int, *, thoughts: bool, subject: str) -> None:
        self.family, self.thoughts = family, thoughts
        self.random = random.Random(seed)
        self.renderer = _splicing(family)
        # Fields of each request besides the usual ones.
        self.fields: dict[str, Any] = {}
        # Texts made so far; each ends with its number.
        self.said = 0
        self.messages: list[Block] = [user(f"{subject} {seed}: {self.words()}")]
        if seed % 2:
            self.messages.append(system(self.words()))
        self.calls = 0
        # The token that ended the latest answer.
        self.end = 0

    def words(self) -> str:
        self.said += 1
        some = self.random.choices(_WORDS, k=self.random.randint(1, 8))
        return " ".join([*some, f"word{self.said}."])

    def ask(self, messages: Sequence[Block] | None = None) -> tuple[Prompt, Prompt]:
        """The prompt with answers spliced, and without."""
        asked = self.messages if messages is None else messages
        fields: dict[str, Any] = {"tools": [BASH], "system": "You help.", **self.fields}
        if self.thoughts:
            fields["thinking"] = {"type": "enabled", "budget_tokens": 1024}
        body = request(*asked, **fields)
        return self.renderer.render(body), _plain(self.family).render(body)

    def answer(self, prompt: Prompt) -> TokenArray:
        """Adds an answer and the next turn, and returns all tokens up to the end of the answer."""
        words = [self.random.randrange(100, 200) for _ in range(self.random.randint(1, 30))]
        message, following = self.turns()
        self.end = _end(self.family, message)
        generated = token_array([*words, self.end])
        assert prompt.answer_position is not None
        self.renderer.keep_answer(
            prompt.answer_position, generated, Message.model_validate(message)
        )
        self.messages += [message, *following]
        return np.concatenate([prompt.token_ids, generated])

    def turns(self) -> tuple[Block, list[Block]]:
        blocks = [thinking(self.words())] * self.thoughts + [text(self.words())]
        if self.random.random() < 0.5:
            return assistant(*blocks), [user(self.words())]
        self.calls += 1
        name = f"toolu_{self.calls}"
        return assistant(*blocks, call(name, self.words())), [user(result(name, self.words()))]


def _begins(ids: TokenArray, start: TokenArray) -> bool:
    return bool(np.array_equal(ids[: len(start)], start))


def _ends(ids: TokenArray, tail: TokenArray) -> bool:
    return bool(np.array_equal(ids[len(ids) - len(tail) :], tail))


@pytest.mark.parametrize("thoughts", [False, True])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("family", _SPLICED)
def test_prompts_only_grow(family: str, seed: int, thoughts: bool) -> None:
    """Each prompt begins with the previous one and its answer; the rest is the template's."""
    subject = f"growing {'with' if thoughts else 'without'} thoughts"
    talk = _Talk(family, seed, thoughts=thoughts, subject=subject)
    prompt, plain = talk.ask()
    assert _begins(prompt.token_ids, plain.token_ids)
    for _ in range(8):
        computed = talk.answer(prompt)
        prompt, plain = talk.ask()
        assert _begins(prompt.token_ids, computed)
        tail = prompt.token_ids[len(computed) :]
        assert _ends(plain.token_ids, tail)
        # The tail is what follows the answer, all of it and nothing else.
        assert plain.token_ids[len(plain.token_ids) - len(tail) - 1] == talk.end
        said = tokenizer(family).decode(tail)
        assert f"word{talk.said}." in said
        assert f"word{talk.said - 1}." not in said
        assert prompt.stable_tokens == plain.stable_tokens
        assert all(0 < mark < len(prompt.token_ids) for mark in prompt.cut_points)
        assert list(prompt.cut_points) == sorted(set(prompt.cut_points))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("family", sorted(TEMPLATES.keys() - {"bare", "gemma2"}))
def test_what_is_not_equal_is_rendered(family: str, seed: int) -> None:
    """Up to the answer before an edited message the prompt is spliced, and after it rendered."""
    talk = _Talk(family, seed, thoughts=False, subject="edited")
    computed = []
    prompt, _ = talk.ask()
    lengths = []
    for _ in range(6):
        lengths.append(len(talk.messages))
        computed.append(talk.answer(prompt))
        prompt, _ = talk.ask()
    place = talk.random.randrange(len(talk.messages))
    edited = [dict(message) for message in talk.messages]
    edited[place] = {**edited[place], "content": _changed(edited[place]["content"])}
    prompt, plain = talk.ask(edited)
    # An answer is spliced if it and all before it came back as they were.
    kept = [ids for ids, before in zip(computed, lengths, strict=True) if before < place]
    if kept and family in _SPLICED:
        assert _begins(prompt.token_ids, kept[-1])
        assert _ends(plain.token_ids, prompt.token_ids[len(kept[-1]) :])
    elif not kept:
        assert np.array_equal(prompt.token_ids, plain.token_ids)
    again, _ = talk.ask()
    if family in _SPLICED:
        assert _begins(again.token_ids, computed[-1])


def _changed(content: Any) -> Any:
    if isinstance(content, str):
        return content + " changed"
    first = {**content[0]}
    key = next(key for key in ("text", "content", "thinking") if key in first)
    first[key] = f"{first[key]} changed"
    return [first, *content[1:]]


@pytest.mark.parametrize("family", sorted(TEMPLATES.keys() - {"bare", "gemma2"}))
def test_no_template_gets_a_wrong_prompt(family: str) -> None:
    """The prompt either continues the computed tokens, or is rendered by the template."""
    for seed in range(4):
        talk = _Talk(family, seed, thoughts=False, subject="any template")
        prompt, _ = talk.ask()
        for _ in range(5):
            computed = talk.answer(prompt)
            prompt, plain = talk.ask()
            if _begins(prompt.token_ids, computed):
                assert _ends(plain.token_ids, prompt.token_ids[len(computed) :])
            else:
                assert np.array_equal(prompt.token_ids, plain.token_ids)


@pytest.mark.parametrize("family", ["chatml", "qwen3", "qwen3_coder"])
def test_an_answer_with_another_end_gets_that_of_the_template(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the end differs, so the answer is not rendered (`<|endoftext|>` for `<|im_end|>`)."""
    monkeypatch.setitem(_TURN_ENDS, family, (EOS, EOS))
    talk = _Talk(family, 5, thoughts=family == "qwen3", subject="another end")
    end = tokenizer(family).get_vocab()["<|im_end|>"]
    prompt, _ = talk.ask()
    for _ in range(5):
        written = talk.answer(prompt)[:-1]
        prompt, plain = talk.ask()
        assert _begins(prompt.token_ids, np.append(written, np.int32(end)))
        assert _ends(plain.token_ids, prompt.token_ids[len(written) :])


def test_a_fork_goes_on_from_its_own_answers() -> None:
    """Two continuations of one answer keep their own answers, also if they alternate."""
    talk = _Talk("qwen3", 1, thoughts=True, subject="forked")
    prompt, _ = talk.ask()
    talk.answer(prompt)
    common = list(talk.messages)
    branches = []
    for _ in range(2):
        talk.messages = [*common, user("Branch."), assistant("Ok."), user(talk.words())]
        prompt, _ = talk.ask()
        branches.append((talk.answer(prompt), talk.messages))
    for computed, messages in [*branches, *branches]:
        prompt, _ = talk.ask(messages)
        assert _begins(prompt.token_ids, computed)


@pytest.mark.parametrize(
    ("keep", "spliced"),
    [("all", True), ({"type": "all"}, True), ({"type": "thinking_turns", "value": 1}, False)],
)
def test_on_request_only_a_client_that_keeps_all_thinking_gets_it(keep: Any, spliced: bool) -> None:
    """With `spliced_on_request`, the client's wish decides; without a wish, nothing is spliced."""
    renderer = PromptRenderer(tokenizer("qwen3"), spliced_bytes=_BYTES, spliced_on_request=True)
    edits = {"edits": [{"type": "clear_thinking_20251015", "keep": keep}]}
    asked = renderer.render(request(user("Hi."), context_management=edits))
    silent = renderer.render(request(user("Hi.")))
    assert (asked.answer_position is not None) is spliced
    assert silent.answer_position is None


def test_a_client_that_keeps_all_thinking_computes_a_question_once() -> None:
    """A question after a tool loop extends the prompt, where the template drops the thinking."""
    talk = _Talk("qwen3", 3, thoughts=True, subject="on request")
    talk.renderer = PromptRenderer(
        tokenizer("qwen3"), spliced_bytes=_BYTES, spliced_on_request=True
    )
    edit = {"type": "clear_thinking_20251015", "keep": "all"}
    talk.fields = {"context_management": {"edits": [edit]}}
    prompt, _ = talk.ask()
    for _ in range(6):
        computed = talk.answer(prompt)
        prompt, plain = talk.ask()
        assert _begins(prompt.token_ids, computed)
    assert not _begins(plain.token_ids, computed)


def test_off_changes_nothing() -> None:
    """Without the setting, a prompt has no answer position."""
    body = request(user("Hi."))
    assert _plain("chatml").render(body).answer_position is None


def test_what_is_kept_is_bounded() -> None:
    """Over the limit, the oldest conversation is rendered by the template again."""
    talk = _Talk("chatml", 0, thoughts=False, subject="bounded")
    talk.renderer = PromptRenderer(tokenizer("chatml"), spliced_bytes=1000)
    prompt, _ = talk.ask()
    talk.messages[0] = user("word " * 2000)
    prompt, _ = talk.ask()
    talk.answer(prompt)
    prompt, plain = talk.ask()
    assert np.array_equal(prompt.token_ids, plain.token_ids)
