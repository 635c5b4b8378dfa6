"""What a template supports is found out, and adapting only new messages is enough."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.mlx.prompt.canonical import Conversation, TemplateMessage
from anyclaude.mlx.prompt.dialect import ConversationAdapter, Dialect
from tests.models.requests import (
    BASH,
    assistant,
    call,
    request,
    result,
    system,
    thinking,
    user,
)
from tests.models.tokenizers import byte_level, wrap

_DIALECTS = [
    Dialect(),
    *(Dialect(**{field.name: False}) for field in fields(Dialect)),
    Dialect(**{field.name: False for field in fields(Dialect) if field.name != "parallel_calls"}),
]


def _call(name: str) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "Bash", "arguments": {"a": 1}}}


_TEXTS = st.sampled_from(["", "one", "two"])
_NAMES = st.sampled_from(["toolu_1", "toolu_2"])
_MESSAGES: st.SearchStrategy[TemplateMessage] = st.one_of(
    st.builds(
        lambda role, text: {"role": role, "content": text},
        st.sampled_from(["user", "assistant", "system"]),
        _TEXTS,
    ),
    st.builds(
        lambda text, name: {"role": "tool", "tool_call_id": name, "content": text}, _TEXTS, _NAMES
    ),
    st.builds(
        lambda text, names: {
            "role": "assistant",
            "content": text,
            "reasoning_content": "hm",
            "tool_calls": [_call(name) for name in names],
        },
        _TEXTS,
        st.lists(_NAMES, min_size=1, max_size=2),
    ),
)


@pytest.mark.parametrize("dialect", _DIALECTS)
@settings(max_examples=60)
@given(
    pool=st.lists(_MESSAGES, min_size=1, max_size=8),
    picks=st.lists(
        st.tuples(st.integers(0, 10), st.lists(st.integers(0, 7), max_size=3)), max_size=8
    ),
    leading=st.sampled_from([(), ("system",), ("one", "two")]),
)
def test_adapting_new_messages_is_enough(
    dialect: Dialect,
    pool: list[TemplateMessage],
    picks: list[tuple[int, list[int]]],
    leading: tuple[str, ...],
) -> None:
    """It holds for conversations that grow, are cut back and fork, with reused message objects."""
    adapter = ConversationAdapter(dialect, 1 << 20)
    conversation = Conversation(leading, (pool[0],), ())
    for cut, more in picks:
        kept = conversation.messages[:cut]
        added = tuple(pool[index % len(pool)] for index in more)
        conversation = replace(conversation, messages=kept + added)
        fresh = ConversationAdapter(dialect, 1 << 20).adapted(conversation)
        adapted = adapter.adapted(conversation)
        assert adapted.messages == dialect.adapt(conversation)
        assert (adapted.messages, adapted.exact) == (fresh.messages, fresh.exact)


def test_the_cache_is_bounded() -> None:
    """Over the limit, nothing is cached and every conversation is adapted as a whole."""
    adapter = ConversationAdapter(Dialect(), 10)
    messages = ({"role": "user", "content": "word " * 100},)
    for _ in range(3):
        assert adapter.adapted(Conversation((), messages, ())).messages == list(messages)
    assert len(adapter._cache) == 0


_MOVING = (
    "{%- set sys = messages[0].content if messages[0].role == 'system' else '' -%}"
    "{%- set turns = messages[1:] if sys else messages -%}{%- for m in turns -%}"
    "{%- if m.role == 'user' -%}[INST]{%- if loop.last -%}{{ sys }}{%- endif -%}"
    "{{ m.content }}[/INST]"
    "{%- elif m.role == 'tool' -%}[R]{{ m.content }}[/R]"
    "{%- elif m.role == 'assistant' -%}{{ m.content }}"
    "{%- for c in m.tool_calls or [] -%}[TOOL_CALLS]{{ c.function | tojson }}{%- endfor -%}</s>"
    "{%- else -%}LATE{%- endif -%}{%- endfor -%}"
)


@pytest.mark.parametrize("late", ["{{ raise_exception('no system message here') }}", ""])
def test_a_template_that_moves_the_system_text_keeps_later_ones(late: str) -> None:
    """Where no dialect gives all texts in order, the one that loses none of them is chosen."""
    wrapper = wrap(byte_level(), _MOVING.replace("LATE", late), ["[INST]", "[/INST]", "</s>"])
    asked = request(user("a"), assistant("b"), user("c"), system("Mind this."), system="Be brief.")
    text = wrapper.decode(PromptRenderer(wrapper).render(asked).token_ids.tolist())
    assert "Be brief." in text
    assert "Mind this." in text


# Like Mistral-Nemo's: the system text moves to the latest question.
_AT_LAST_QUESTION = (
    "{%- set sys = messages[0].content if messages[0].role == 'system' else none -%}"
    "{%- for m in messages -%}"
    "{%- if m.role == 'user' -%}[INST]{{ sys if sys and loop.last }}{{ m.content }}[/INST]"
    "{%- elif m.role != 'system' -%}{{ m.content }}</s>{%- endif -%}{%- endfor -%}"
)


def test_a_system_text_that_would_move_stays_before_the_first_question() -> None:
    """It is there in a tool loop too, which ends with a result, and behind the next question."""
    wrapper = wrap(byte_level(), _AT_LAST_QUESTION, ["[INST]", "[/INST]", "</s>"])
    loop = [user("a"), assistant("b", call("t1")), user(result("t1", "x"))]
    for messages in (loop, [*loop, assistant("done"), user("c")]):
        asked = request(*messages, system="Be brief.")
        text = wrapper.decode(PromptRenderer(wrapper).render(asked).token_ids.tolist())
        assert text.startswith("[INST]Be brief.")
        assert text.count("Be brief.") == 1


@pytest.mark.parametrize("role", ["", "{{ raise_exception('unknown role') }}"])
def test_results_that_a_template_does_not_print_are_user_turns(role: str) -> None:
    """Where a template drops or refuses results, each is a user turn in its place."""
    template = (
        "{%- for m in messages -%}{%- if m.role == 'tool' -%}ROLE{%- else -%}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%- endif -%}{%- endfor -%}"
        "<|im_start|>assistant\n"
    )
    wrapper = wrap(byte_level(), template.replace("ROLE", role), ["<|im_start|>", "<|im_end|>"])
    asked = request(
        user("a"),
        assistant(call("t1"), call("t2")),
        user(result("t1", "first-result"), result("t2", "second-result")),
        tools=[BASH],
    )
    text = wrapper.decode(PromptRenderer(wrapper).render(asked).token_ids.tolist())
    for words in ("first-result", "second-result"):
        assert f"<|im_start|>user\n{words}<|im_end|>" in text


_TURN = "{%- for m in messages -%}<|im_start|>{{ m.role }}\n"
_CALLS = "{%- for c in m.tool_calls or [] -%}[CALL]{{ c.function | tojson }}{%- endfor -%}"
_THOUGHT = "{%- if m.reasoning_content -%}[THINK]{{ m.reasoning_content }}[/THINK]{%- endif -%}"
_END = "<|im_end|>\n{%- endfor -%}<|im_start|>assistant\n"
# What templates make of a text beside a call.
_BESIDE = {
    "dropped": (
        f"{_TURN}{{%- if m.tool_calls -%}}{_CALLS}{{%- else -%}}{{{{ m.content }}}}{{%- endif -%}}"
    ),
    "dropped beside thinking": (
        f"{_TURN}{_THOUGHT}{{%- if not (m.reasoning_content and m.tool_calls) -%}}"
        f"{{{{ m.content }}}}{{%- endif -%}}{_CALLS}"
    ),
    "printed behind the results": (
        f"{_TURN}{_THOUGHT}{_CALLS}{{%- if m.tool_calls -%}}"
        "{%- for r in messages[loop.index0 + 1:] if r.role == 'tool' -%}"
        "[R]{{ r.content }}{%- endfor -%}"
        "{%- endif -%}{%- if m.role != 'tool' -%}{{ m.content }}{%- endif -%}"
    ),
    "refused": (
        f"{_TURN}{{%- if m.tool_calls and m.content -%}}{{{{ raise_exception('text') }}}}"
        f"{{%- endif -%}}{{{{ m.content }}}}{_CALLS}"
    ),
    "refused, as if it were null": (
        f"{_TURN}{{%- if m.tool_calls -%}}{{{{ raise_exception('text') if m.content else '' }}}}"
        f"{_CALLS}{{%- else -%}}{{{{ m.content }}}}{{%- endif -%}}"
    ),
}


@pytest.mark.parametrize("later", [False, True], ids=["in the loop", "after the next question"])
@pytest.mark.parametrize("beside", _BESIDE)
def test_text_beside_a_call_stays_text(beside: str, later: bool) -> None:
    """The text is printed once, before the call, and stays when thinking may be dropped."""
    wrapper = wrap(byte_level(), _BESIDE[beside] + _END, ["<|im_start|>", "<|im_end|>"])
    messages = [
        user("a"),
        assistant(thinking("hm"), "I look around.", call("t1")),
        user(result("t1", "x")),
        *([assistant("done"), user("b")] if later else []),
    ]
    asked = request(*messages, tools=[BASH], thinking={"type": "adaptive"})
    text = wrapper.decode(PromptRenderer(wrapper).render(asked).token_ids.tolist())
    assert text.count("I look around.") == 1
    assert text.index("I look around.") < text.index("[CALL]")
    assert "I look around.[/THINK]" not in text


def test_a_template_that_prints_one_call_of_a_turn_gets_one_in_each() -> None:
    """Where a template silently drops all calls but the first, each gets a turn of its own."""
    first = _CALLS.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]")
    template = f"{_TURN}{{{{ m.content }}}}{first}{_END}"
    wrapper = wrap(byte_level(), template, ["<|im_start|>", "<|im_end|>"])
    asked = request(
        user("a"),
        assistant("Both.", call("t1", "first-call"), call("t2", "second-call")),
        user(result("t1", "first-result"), result("t2", "second-result")),
        tools=[BASH],
    )
    text = wrapper.decode(PromptRenderer(wrapper).render(asked).token_ids.tolist())
    parts = ["Both.", "first-call", "first-result", "second-call", "second-result"]
    assert [text.count(part) for part in parts] == [1] * 5
    assert parts == sorted(parts, key=text.index)
