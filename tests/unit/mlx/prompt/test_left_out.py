"""What a chat template leaves out of a prompt is in it nevertheless, in the model's own form."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper

from anyclaude.mlx.prompt import PromptRenderer
from tests.models import families
from tests.models.requests import (
    BASH,
    Block,
    assistant,
    call,
    request,
    result,
    text,
    thinking,
    user,
)
from tests.models.tokenizers import BOS, EOS, byte_level, tokenizer, wrap

_TURNS: Final = ("<|im_start|>", "<|im_end|>")
_PLAIN: Final = (
    "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{%- endfor -%}<|im_start|>assistant\n"
)
# Like LFM2's: tools are listed, but calls are not printed.
_NO_CALLS: Final = (
    "{%- if tools -%}<|im_start|>system\nList of tools: <|tool_list_start|>{{ tools | tojson }}"
    f"<|tool_list_end|><|im_end|>\n{{%- endif -%}}{_PLAIN}"
)
_DEEPSEEK: Final = ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>")
_DEEPSEEK_CALLS: Final = tuple(
    f"<｜{name}｜>"
    for name in (
        *("tool▁calls▁begin", "tool▁calls▁end", "tool▁call▁begin", "tool▁call▁end", "tool▁sep"),
    )
)
# Like DeepSeek-V3.1's: calls are printed, but tools are not described.
_NO_TOOLS: Final = (
    "{%- for m in messages -%}{%- if m.role == 'system' -%}{{ m.content }}{%- endif -%}"
    "{%- if m.role == 'user' -%}<｜User｜>{{ m.content }}<｜Assistant｜>{%- endif -%}"
    "{%- if m.role == 'assistant' -%}{{ m.content }}{%- for c in m.tool_calls or [] -%}"
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{{ c.function.name }}<｜tool▁sep｜>"
    "{{ c.function.arguments | tojson }}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    "{%- endfor -%}<｜end▁of▁sentence｜>{%- endif -%}"
    "{%- if m.role == 'tool' -%}{{ m.content }}{%- endif -%}{%- endfor -%}"
)
# Like Mistral-Small-3.2's: the words beside a call are not printed.
_NO_WORDS: Final = (
    "{%- for m in messages -%}{%- if m.role == 'user' -%}[INST]{{ m.content }}[/INST]"
    "{%- elif m.role == 'tool' -%}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]"
    "{%- elif m.tool_calls -%}{%- for c in m.tool_calls -%}[TOOL_CALLS]{{ c.function.name }}[ARGS]"
    "{{ c.function.arguments | tojson }}{%- endfor -%}</s>"
    "{%- else -%}{{ m.content }}</s>{%- if loop.nextitem.role == 'assistant' -%}"
    "{{ raise_exception('roles must alternate') }}{%- endif -%}{%- endif -%}{%- endfor -%}"
)
_MISTRAL: Final = (
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)
_LOOP: Final = (
    user("Look."),
    assistant("I look.", call("toolu_1", "ls")),
    user(result("toolu_1", "a.py")),
    assistant("I\nread [TOOL_CALLS] now.", call("toolu_2", "cat a.py")),
    user(result("toolu_2", "x = 1")),
    assistant("It says x."),
    user("Thanks."),
)


def _model(template: str, control: Sequence[str]) -> TokenizerWrapper:
    return wrap(byte_level(), template, [BOS, EOS, *control])


def _read(model: TokenizerWrapper, *messages: Block) -> str:
    prompt = PromptRenderer(model).render(request(*messages, tools=[BASH], system="Help."))
    return str(model.decode(prompt.token_ids))


_CALLED: Final = (
    user("a"),
    assistant("Words.", call("t1", 'a "b"')),
    user(result("t1", "done")),
)


def test_calls_that_a_template_does_not_print() -> None:
    """They are written behind the words beside them, as JSON if the family is not known."""
    read = _read(_model(_PLAIN, _TURNS), *_CALLED)
    calls = '[{"name": "Bash", "arguments": {"command": "a \\"b\\""}}]'
    assert f"<|im_start|>assistant\nWords.{calls}<|im_end|>" in read
    assert read.index(calls) < read.index("done")


def test_pythonic_calls_that_a_template_does_not_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written as the models of the family write them, between the real markers."""
    monkeypatch.setitem(
        families.FAMILIES, "mine", replace(families.FAMILIES["pythonic"], template=_NO_CALLS)
    )
    model = families.tokenizer.__wrapped__("mine")
    calls = '<|tool_call_start|>[Bash(command="a \\"b\\"")]<|tool_call_end|>'
    assert f"Words.{calls}<|im_end|>" in _read(model, *_CALLED)
    ids = PromptRenderer(model).render(request(*_CALLED, tools=[BASH])).token_ids.tolist()
    assert ids.count(model.get_vocab()["<|tool_call_start|>"]) == 1


def test_tools_that_a_template_does_not_describe() -> None:
    """They are described in the system prompt, and the markers of calls there are real ones."""
    model = _model(_NO_TOOLS, [*_DEEPSEEK, *_DEEPSEEK_CALLS])
    read = _read(model, user("a"))
    assert read.startswith("Help.\n\n## Tools\n")
    assert "### Bash\nDescription: Runs a command.\n\nParameters: {" in read
    ids = PromptRenderer(model).render(request(user("a"), tools=[BASH])).token_ids.tolist()
    assert model.get_vocab()["<｜tool▁sep｜>"] in ids
    plain = PromptRenderer(model).render(request(user("a"))).token_ids
    assert "## Tools" not in model.decode(plain)


# Like Mistral-Nemo's: and the call is printed as JSON, with its name.
_NO_WORDS_IN_JSON: Final = _NO_WORDS.replace(
    "{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}", "{{ c.function | tojson }}"
)


@pytest.mark.parametrize(
    ("template", "written"), [(_NO_WORDS, "Bash[ARGS]"), (_NO_WORDS_IN_JSON, '{"name": "Bash"')]
)
def test_words_that_a_template_does_not_print(template: str, written: str) -> None:
    """They come before the call, also behind a later answer, and make no control token."""
    model = _model(template, _MISTRAL)
    read = _read(model, *_LOOP)
    assert f"I look.[TOOL_CALLS]{written}" in read
    assert f"I\nread [TOOL_CALLS] now.[TOOL_CALLS]{written}" in read
    ids = PromptRenderer(model).render(request(*_LOOP, tools=[BASH])).token_ids.tolist()
    assert ids.count(model.get_vocab()["[TOOL_CALLS]"]) == 2


def test_words_and_thinking_beside_a_call_of_gpt_oss() -> None:
    """Words are a message of their own, which stays when the template leaves out the thinking."""
    steps = [
        user("Look."),
        assistant(thinking("hm"), "I look.", call("toolu_1", "ls")),
        user(result("toolu_1", "a.py")),
    ]
    words = "<|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
    for messages in (steps, [*steps, assistant("Done."), user("Thanks.")]):
        assert _read(tokenizer("gpt_oss"), *messages).count(words) == 1
    assert "analysis<|message|>hm<|end|>" in _read(tokenizer("gpt_oss"), *steps)


def test_a_reminder_behind_a_result_is_no_new_question() -> None:
    """A reminder extends the prompt, also if the template drops thinking before a user's turn."""
    loop = [user("Fix."), assistant(thinking("Step."), call("t1")), user(result("t1", "x"))]
    renderer = PromptRenderer(tokenizer("qwen3"))
    fields: dict[str, Any] = {"tools": [BASH], "thinking": {"type": "adaptive"}}
    before = renderer.render(request(*loop, **fields)).token_ids
    reminder = text("<system-reminder>\nMind the list.\n</system-reminder>")
    step = assistant(thinking("Next."), call("t2"))
    asked = request(*loop, step, user(result("t2", "y"), reminder), **fields)
    after = renderer.render(asked).token_ids
    assert after[: len(before)].tolist() == before.tolist()
    assert "Mind the list." in tokenizer("qwen3").decode(after)
