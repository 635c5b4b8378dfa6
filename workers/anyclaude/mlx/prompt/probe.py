"""Finds out, by trying, what a chat template takes: once, when the model is loaded.

Each field of the dialect has a short conversation that needs it. It counts as taken when the
template raises nothing and prints every text, in order: some drop silently what they do not know.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Final

from anyclaude.mlx.prompt.canonical import Conversation, TemplateMessage
from anyclaude.mlx.prompt.dialect import Dialect
from anyclaude.mlx.prompt.template import Template, TemplateRefused

TOOL: Final = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}


def said(role: str, text: str) -> TemplateMessage:
    return {"role": role, "content": text}


def calls(*numbers: int, **also: str) -> TemplateMessage:
    calls = [
        {
            "id": f"toolu_probe{number}",
            "type": "function",
            "function": {"name": "lookup", "arguments": {"word": "apple", "exact": True}},
        }
        for number in numbers
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls, **also}


def result(number: int, text: str, **name: str) -> TemplateMessage:
    return {"role": "tool", "tool_call_id": f"toolu_probe{number}", "content": text, **name}


_KNOWN: Final = {"name": "lookup"}
_ASK: Final = said("user", "probe-ask")
_ANSWER: Final = said("assistant", "probe-answer")
_MORE: Final = said("user", "probe-more")


def _conversation(*messages: TemplateMessage, leading: tuple[str, ...] = ()) -> Conversation:
    return Conversation(leading, messages, ())


_CALLED: Final = _conversation(_ASK, calls(1), result(1, "probe-result", **_KNOWN), _ANSWER, _MORE)
_TALKED: Final = _conversation(_ASK, _ANSWER, _MORE, leading=("probe-system",))
# In this order, each needing only what comes before it.
_NEEDS: Final = {
    "repeated_roles": _conversation(_ASK, _MORE, _ANSWER, said("assistant", "probe-again")),
    "leading_system": _conversation(_ASK, leading=("probe-system",)),
    "second_system": _conversation(_ASK, leading=("probe-system", "probe-second")),
    "user_after_result": _conversation(
        _ASK, calls(1), result(1, "probe-result", **_KNOWN), _MORE, _ANSWER
    ),
    "orphan_results": _conversation(_ASK, _ANSWER, result(9, "probe-orphan"), _ANSWER),
    "parallel_calls": _conversation(
        _ASK,
        calls(1, 2),
        result(1, "probe-first", **_KNOWN),
        result(2, "probe-second", **_KNOWN),
    ),
    "thinking_and_text_with_call": _conversation(
        _ASK,
        calls(1, content="probe-words", reasoning_content="probe-thought"),
        result(1, "probe-result", **_KNOWN),
    ),
    "late_system": _conversation(
        _ASK,
        said("system", "probe-late"),
        calls(1),
        result(1, "probe-result", **_KNOWN),
        said("system", "probe-later"),
        _ANSWER,
        _MORE,
        said("system", "probe-last"),
        leading=("probe-system",),
    ),
}


def find_dialect(template: Template) -> Dialect:
    """The fewest rewritings with which the template takes every conversation it can take."""
    spellings = [
        Dialect(object_arguments=arguments, any_tool_id=any_id)
        for arguments, any_id in product((True, False), repeat=2)
    ]
    dialect = next((one for one in spellings if _takes(template, one, _CALLED)), Dialect())
    for need, conversation in _NEEDS.items():
        without = replace(dialect, **{need: False})
        if not _takes(template, dialect, conversation) and _takes(template, without, conversation):
            dialect = without
    return dialect


def turns_rendered(template: Template, dialect: Dialect) -> Iterator[tuple[str, str]]:
    """Each beginning of conversations with every kind of turn, and the whole, as text."""
    for conversation in (_TALKED, _CALLED, _NEEDS["late_system"]):
        messages = dialect.shape(conversation)
        whole = _try(template, messages, answer=True)
        for end in range(1, len(messages) + 1):
            beginning = _try(template, messages[:end], answer=False)
            if whole and beginning:
                yield beginning, whole


def _takes(template: Template, dialect: Dialect, conversation: Conversation) -> bool:
    text = _try(template, dialect.shape(conversation), answer=True)
    return text is not None and _in_order(text, _texts(conversation))


def _try(template: Template, messages: list[TemplateMessage], answer: bool) -> str | None:
    try:
        return template.render(messages, [TOOL], answer=answer)
    except TemplateRefused:
        return None


def _texts(conversation: Conversation) -> Iterator[str]:
    yield from conversation.leading
    yield from (message["content"] for message in conversation.messages)


def _in_order(text: str, words: Iterator[str]) -> bool:
    place = 0
    for word in words:
        place = text.find(word, place)
        if place < 0:
            return False
        place += len(word)
    return True
