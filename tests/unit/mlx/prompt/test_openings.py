"""How templates open an answer: finding earlier answers again, and asking for thinking."""

from typing import Any, Final

import numpy as np
import pytest

from anyclaude.messages.requests import Message
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.mlx.tokens import token_array
from tests.models.requests import assistant, request, text, thinking, user
from tests.models.tokenizers import byte_level, wrap

_KEEP: Final = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
_LOOP: Final = "{%- for m in messages -%}"
# Roles are plain text, and the prompt opens the thinking in the line of the role, which no earlier
# answer shows.
_IN_LINE: Final = (
    f"{_LOOP}{{{{ m.role ~ ': ' ~ m.content ~ '<sep>' }}}}{{%- endfor -%}}"
    "{%- if add_generation_prompt -%}{{ 'assistant: <think>\\n' }}{%- endif -%}"
)
# Each turn begins with a line end before its control token, and the last answer has no end.
_BEHIND_A_LINE_END: Final = (
    f"{_LOOP}{{{{ '\\n<|' ~ m.role ~ '|>\\n' ~ m.content }}}}"
    "{%- if m.role == 'assistant' and not loop.last -%}{{ '\\n<|end|>' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '\\n<|assistant|>\\n<think>' }}{%- endif -%}"
)


def _tokenizer(template: str, *special: str) -> TokenizerWrapper:
    return wrap(byte_level(), template, special, ("<think>", "</think>"))


@pytest.mark.parametrize(
    ("template", "special"),
    [
        (_IN_LINE, ("<sep>",)),
        (_BEHIND_A_LINE_END, ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")),
    ],
)
def test_the_next_question_repeats_the_answer_and_its_thinking(
    template: str, special: tuple[str, ...]
) -> None:
    """A prompt begins with the tokens of the one before it and of that one's answer."""
    words = _tokenizer(template, *special)
    renderer = PromptRenderer(words, spliced_bytes=1 << 20, spliced_on_request=True)
    messages = [user("Why?")]
    for number in range(3):
        prompt = renderer.render(request(*messages, context_management=_KEEP))
        assert prompt.answer_position is not None
        written = f"A thought {number}.</think>An answer {number}.{special[0]}"
        generated = token_array(words.encode(written, add_special_tokens=False))
        answer = assistant(thinking(f"A thought {number}."), text(f"An answer {number}."))
        renderer.keep_answer(prompt.answer_position, generated, Message.model_validate(answer))
        messages += [answer, user(f"And {number}?")]
        asked = renderer.render(request(*messages, context_management=_KEEP))
        computed = np.concatenate([prompt.token_ids, generated[:-1]])
        assert np.array_equal(asked.token_ids[: len(computed)], computed)
        shown = words.decode(asked.token_ids.tolist())
        assert shown.count(f"An answer {number}.") == 1


def test_an_answer_whose_parts_open_like_turns_is_written_once() -> None:
    """Where the end of an answer is not found, the template's rendering of it is used alone."""
    template = (
        f"{_LOOP}{{{{ '<|open|>' ~ m.role ~ '<|sep|>' }}}}{{%- if m.role == 'assistant' -%}}"
        "{{ '<|open|>think<|sep|>' ~ m.reasoning_content ~ '<|close|><|open|>response<|sep|>' }}"
        "{%- endif -%}{{ m.content ~ '<|close|><|end|>' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}"
        "{{ '<|open|>assistant<|sep|><|open|>think<|sep|>' }}{%- endif -%}"
    )
    words = _tokenizer(template, "<|end|>", "<|open|>", "<|sep|>", "<|close|>")
    renderer = PromptRenderer(words, spliced_bytes=1 << 20)
    prompt = renderer.render(request(user("Why?")))
    written = "A thought.<|close|><|open|>response<|sep|>An answer.<|close|><|end|>"
    generated = token_array(words.encode(written, add_special_tokens=False))
    answer = assistant(thinking("A thought."), text("An answer."))
    if prompt.answer_position is not None:
        renderer.keep_answer(prompt.answer_position, generated, Message.model_validate(answer))
    asked = renderer.render(request(user("Why?"), answer, user("And?")))
    shown = words.decode(asked.token_ids.tolist())
    assert (shown.count("A thought."), shown.count("An answer.")) == (1, 1)


@pytest.mark.parametrize(
    ("variable", "off", "on"),
    [
        ("reasoning_effort", "no_think", "high"),
        ("reasoning_effort", "minimal", "high"),
        ("thinking_mode", "disabled", "enabled"),
    ],
)
def test_the_template_s_own_switch_follows_the_client(variable: str, off: str, on: str) -> None:
    """A template without `enable_thinking` is told to think, or not, in its own words."""
    template = (
        f"{{{{ {variable} | default('unset') }}}}{{%- if {variable} == '{off}' -%}}.{{%- endif -%}}"
        f"{_LOOP}<|turn|>{{{{ m.content }}}}{{%- endfor -%}}"
    )
    words = _tokenizer(template, "<|turn|>")
    renderer = PromptRenderer(words)

    def first_word(**fields: Any) -> str:
        tokens = renderer.render(request(user("Hi."), **fields)).token_ids.tolist()
        return str(words.decode(tokens)).partition("<|turn|>")[0]

    assert first_word() == f"{off}."
    assert first_word(thinking={"type": "adaptive"}) == on
