"""Finds out by rendering what a chat template supports, once, when the model is loaded.

For each field of the dialect there is a short conversation that needs it. The template accepts it
if it raises nothing and prints every text in order, and as many calls as it can: some templates
silently drop what they do not know. `can_continue` tests whether a rendering can be continued
(`continuation.py`): random conversations with every kind of turn grow by one turn at a time, with
the shortest possible digest, and each continued text must equal the text of a whole rendering. If
one differs, this model's conversations are always rendered whole.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from enum import IntEnum
from itertools import product
from typing import Final

from anyclaude.mlx.prompt.canonical import Conversation, TemplateMessage
from anyclaude.mlx.prompt.continuation import Continuation, Rendering
from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.prompt.cuts import TurnTokens
from anyclaude.mlx.prompt.dialect import REMINDER, AdaptedMessages, Dialect
from anyclaude.mlx.prompt.left_out import LeftOut
from anyclaude.mlx.prompt.template import Template, TemplateRefused, Variables

_TOLD: Final = "Looks a word up."
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": _TOLD,
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}

# The shortest digest, so that short conversations are enough.
TRIAL_DIGEST_MESSAGES: Final = 4
_TRIALS: Final = 4
_TURNS: Final = 9


def _message(role: str, text: str) -> TemplateMessage:
    return {"role": role, "content": text}


def _calls(*numbers: int, **also: str) -> TemplateMessage:
    calls = [
        {
            "id": f"toolu_probe{number}",
            "type": "function",
            "function": {
                "name": "lookup",
                "arguments": {"word": f"probe-word-{number}", "exact": True},
            },
        }
        for number in numbers
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls, **also}


def _result(number: int, text: str, **name: str) -> TemplateMessage:
    return {"role": "tool", "tool_call_id": f"toolu_probe{number}", "content": text, **name}


_KNOWN: Final = {"name": "lookup"}
_ASK: Final = _message("user", "probe-ask")
_ANSWER: Final = _message("assistant", "probe-answer")
_MORE: Final = _message("user", "probe-more")


def _conversation(*messages: TemplateMessage, leading: tuple[str, ...] = ()) -> Conversation:
    return Conversation(leading, messages, ())


_CALLED: Final = _conversation(
    _ASK, _calls(1), _result(1, "probe-result", **_KNOWN), _ANSWER, _MORE
)
_TALKED: Final = _conversation(_ASK, _ANSWER, _MORE, leading=("probe-system",))
_SAID_AND_CALLED: Final = _conversation(
    _ASK,
    _calls(1, content="probe-words", reasoning_content="probe-thought"),
    _result(1, "probe-result", **_KNOWN),
)
_LOOP: Final = _conversation(
    _ASK,
    _calls(1, reasoning_content="probe-thought"),
    _result(1, "probe-result", **_KNOWN),
)
_REMINDED: Final = replace(
    _LOOP, messages=(*_LOOP.messages, _message("user", f"{REMINDER}probe-reminder"))
)
# Words beside the calls of a tool loop, which a later answer ends.
_WORKED: Final = _conversation(
    _ASK,
    _calls(1, content="probe-first\nwords", reasoning_content="probe-thought"),
    _result(1, "probe-result", **_KNOWN),
    _calls(2, content="probe-second\nwords"),
    _result(2, "probe-more-results", **_KNOWN),
    _ANSWER,
    _MORE,
)
# In this order, since each conversation needs only what the ones before it have settled.
_NEEDS: Final = {
    "repeated_roles": _conversation(_ASK, _MORE, _ANSWER, _message("assistant", "probe-again")),
    # Some templates move it to the latest question.
    "leading_system": _TALKED,
    "second_system": _conversation(_ASK, leading=("probe-system", "probe-second")),
    "results": _CALLED,
    "user_after_result": _conversation(
        _ASK, _calls(1), _result(1, "probe-result", **_KNOWN), _MORE, _ANSWER
    ),
    "orphan_results": _conversation(_ASK, _ANSWER, _result(9, "probe-orphan"), _ANSWER),
    "parallel_calls": _conversation(
        _ASK,
        _calls(1, 2),
        _result(1, "probe-first", **_KNOWN),
        _result(2, "probe-second", **_KNOWN),
    ),
    "thinking_and_text_with_call": _SAID_AND_CALLED,
    "text_with_call": _SAID_AND_CALLED,
    "late_system": _conversation(
        _ASK,
        _message("system", "probe-late"),
        _calls(1),
        _result(1, "probe-result", **_KNOWN),
        _message("system", "probe-later"),
        _ANSWER,
        _MORE,
        _message("system", "probe-last"),
        leading=("probe-system",),
    ),
}


def find_dialect(template: Template) -> Dialect:
    """The dialect that rewrites least, and with which the template accepts the most.

    What the template leaves out of a prompt is added from then on.
    """
    variants = [
        Dialect(object_arguments=arguments, any_tool_id=any_id)
        for arguments, any_id in product((True, False), repeat=2)
    ]
    added = LeftOut(calls=not any(_prints_calls(template, one) for one in variants))
    template.add(added)
    if added.calls:
        variants = [one for one in variants if one.object_arguments]
    dialect = max(variants, key=lambda one: _support(template, one, _CALLED))
    for need, conversation in _NEEDS.items():
        without = replace(dialect, **{need: False})
        now, then = (_support(template, one, conversation) for one in (dialect, without))
        # Thinking may be dropped later, and text that was added to it would be lost.
        is_last_resort = need == "thinking_and_text_with_call"
        settles_it = (now[0], then[0]) == (_Support.REFUSED, _Support.IN_ORDER)
        if then > now and (settles_it or not is_last_resort):
            dialect = without
    tools = not (added.calls or _describes_tools(template, dialect)) and template.can_describe_tools
    template.add(replace(added, tools=tools))
    if not added.calls:
        dialect = _with_words(template, dialect, replace(added, tools=tools))
    forgets = _keeps_thought(template, dialect, _LOOP) and not _keeps_thought(
        template, dialect, _REMINDED
    )
    return replace(dialect, reminder_after_result=not forgets)


def _prints_calls(template: Template, dialect: Dialect) -> bool:
    messages = dialect.adapt(_CALLED)
    without = [{key: value for key, value in m.items() if key != "tool_calls"} for m in messages]
    printed = _try(template, messages, answer=True)
    return printed is not None and printed != _try(template, without, answer=True)


def _keeps_thought(template: Template, dialect: Dialect, conversation: Conversation) -> bool:
    return "probe-thought" in (_try(template, dialect.adapt(conversation), answer=True) or "")


def _with_words(template: Template, dialect: Dialect, added: LeftOut) -> Dialect:
    """The dialect that leaves words beside a call where they are, if they can be added there."""
    now = _support(template, dialect, _WORKED)
    if now[0] is _Support.IN_ORDER:
        return dialect
    template.add(replace(added, words=True))
    printed = replace(dialect, text_with_call=True, thinking_and_text_with_call=True)
    if _support(template, printed, _WORKED) > now:
        return printed
    template.add(added)
    return dialect


def _describes_tools(template: Template, dialect: Dialect) -> bool:
    return _TOLD in (_try(template, dialect.adapt(_TALKED), answer=True) or "")


def tools_move(template: Template, dialect: Dialect) -> bool:
    """Whether the template describes tools before the latest question instead of the first."""
    first = _try(template, dialect.adapt(_conversation(_ASK)), answer=True) or ""
    later = _try(template, dialect.adapt(_conversation(_ASK, _ANSWER, _MORE)), answer=True) or ""
    ask = _ASK["content"]
    return _TOLD in first.partition(ask)[0] and _TOLD not in later.partition(ask)[0]


def answers_in_parts(
    template: Template, dialect: Dialect, control: ControlTokens, turns: TurnTokens
) -> bool:
    """Whether thinking and a call of one answer become messages with headers of their own."""
    ask, *answer = dialect.adapt(replace(_LOOP, messages=_LOOP.messages[:2]))
    asked = _try(template, [ask], answer=True) or ""
    answered = _try(template, [ask, *answer], answer=False) or ""
    pieces = control.split(asked)
    header = "".join(pieces[max(turns.ends(pieces), default=len(pieces)) :])
    return bool(header) and answered.count(header) > asked.count(header)


def shows_where_answers_begin(
    template: Template, dialect: Dialect, control: ControlTokens, turns: TurnTokens
) -> bool:
    """Whether only the header of an answer follows the last end of a turn that was found."""
    messages = dialect.adapt(_TALKED)
    for thinking in (False, True):
        prompt = _try(template, messages, answer=True, variables=Variables(thinking))
        pieces = control.split(prompt or "")
        header = "".join(pieces[max(turns.ends(pieces), default=0) :])
        if any(words in header for words in _texts(_TALKED)):
            return False
    return True


def turns_rendered(template: Template, dialect: Dialect) -> Iterator[tuple[str, str]]:
    """Pairs of a rendered beginning of a conversation and the whole rendered conversation."""
    for conversation in (_TALKED, _CALLED, _NEEDS["late_system"]):
        messages = dialect.adapt(conversation)
        whole = _try(template, messages, answer=True)
        for end in range(1, len(messages) + 1):
            beginning = _try(template, messages[:end], answer=False)
            if whole and beginning:
                yield beginning, whole


class _Support(IntEnum):
    """What a template makes of a conversation; some print texts in an order of their own."""

    REFUSED = 0
    TEXTS_LOST = 1
    TEXTS_MOVED = 2
    IN_ORDER = 3


def _support(
    template: Template, dialect: Dialect, conversation: Conversation
) -> tuple[_Support, int]:
    """What the template makes of the texts, and how many of the calls it prints."""
    text = _try(template, dialect.adapt(conversation), answer=True)
    if text is None:
        return _Support.REFUSED, 0
    calls = sum(word in text for word in _words(conversation))
    if _in_order(text, _texts(conversation)):
        return _Support.IN_ORDER, calls
    if all(words in text for words in _texts(conversation)):
        return _Support.TEXTS_MOVED, calls
    return _Support.TEXTS_LOST, calls


def _try(
    template: Template,
    messages: list[TemplateMessage],
    answer: bool,
    variables: Variables = Variables(),  # noqa: B008 - frozen
) -> str | None:
    try:
        return template.render(messages, [_TOOL], answer=answer, variables=variables)
    except TemplateRefused:
        return None


def _texts(conversation: Conversation) -> Iterator[str]:
    yield from conversation.leading
    yield from (message["content"] for message in conversation.messages)


def _words(conversation: Conversation) -> Iterator[str]:
    """The texts in the arguments of calls."""
    for message in conversation.messages:
        for call in message.get("tool_calls", ()):
            yield call["function"]["arguments"]["word"]


def _in_order(text: str, words: Iterator[str]) -> bool:
    place = 0
    for word in words:
        place = text.find(word, place)
        if place < 0:
            return False
        place += len(word)
    return True


def can_continue(continuation: Continuation, dialect: Dialect) -> bool:
    """Whether every continued text equals that of a whole rendering."""
    return all(
        _is_exact(continuation, dialect, random.Random(seed), Variables(thinking=bool(seed % 2)))  # noqa: S311 - not a secret
        for seed in range(_TRIALS)
    )


def _is_exact(
    continuation: Continuation, dialect: Dialect, rng: random.Random, variables: Variables
) -> bool:
    messages: list[TemplateMessage] = [_message("user", "trial-ask")]
    before: Rendering | None = None
    for turn in range(_TURNS):
        conversation = Conversation(("trial-system",), tuple(messages), ())
        adapted = AdaptedMessages.of(dialect.adapt(conversation))
        continued = before and continuation.continued(before, adapted, [_TOOL], variables)
        try:
            if continued and continued.text != continuation.text(adapted, [_TOOL], variables):
                return False
            before = continued or continuation.whole(adapted, [_TOOL], variables)
        except TemplateRefused:
            return True
        messages += _random_turn(rng, turn)
    return True


def _random_turn(rng: random.Random, turn: int) -> Iterator[TemplateMessage]:
    """An answer and the user's turn or the results after it."""
    words = f"trial-{turn}"
    thoughts = {"reasoning_content": f"{words}-thought"} if rng.random() < 0.5 else {}
    if rng.random() < 0.4:
        yield {"role": "assistant", "content": f"{words}-answer", **thoughts}
        yield _message("user", f"{words}-more")
    else:
        numbers = [2 * turn, 2 * turn + 1][: rng.randint(1, 2)]
        yield _calls(*numbers, content=rng.choice(["", f"{words}-words"]), **thoughts)
        for number in numbers:
            yield _result(number, f"{words}-result-{number}", name="lookup")
        if rng.random() < 0.2:
            yield _message("user", f"{words}-interruption")
    if rng.random() < 0.2:
        yield _message("system", f"{words}-late")
