"""A conversation's rendering continued, so that a new turn costs that turn.

What a template prints of old messages may depend on new ones (thinking dropped at each question),
so text cannot just be appended. A *digest* stands for the conversation: its beginning, the latest
group of messages of every kind, its end. Rendered with and without the new messages, the digest
shows what they change. If they only add text at its end, they add the same text to the whole; if
they change anything before, or the digest's end does not read like the whole's, the whole is
rendered. A conversation that is still short is its own digest.

Whether a template can be judged so is tried when the model is loaded (`trial.py`). Not found would
be one that writes otherwise from some place on that only a conversation longer than the trial's
reaches; its next turn is rendered whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from anyclaude.mlx.prompt.canonical import TemplateMessage
from anyclaude.mlx.prompt.compare import exact_bytes, shared_characters
from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.prompt.cuts import TurnTokens
from anyclaude.mlx.prompt.template import Template, TemplateRefused

DIGEST_MESSAGES: Final = 32
# Ends of messages from which on digest and whole have to read alike.
_ALIKE_ENDS: Final = 3

Tools = Sequence[Mapping[str, Any]]
_Shape = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Shaped:
    """A conversation's messages as the template takes them, and each as exact bytes."""

    messages: list[TemplateMessage]
    exact: list[bytes]

    @classmethod
    def of(cls, messages: list[TemplateMessage]) -> Self:
        return cls(messages, [exact_bytes(message) for message in messages])


@dataclass(frozen=True, eq=False)
class Rendering:
    """A conversation's messages and their text."""

    messages: list[bytes]
    text: str
    # Protected; empty if none stands for the conversation.
    digest: list[TemplateMessage]
    digest_text: str


class Continuation:
    """Renders conversations that end with the header of an answer."""

    def __init__(
        self,
        template: Template,
        control: ControlTokens,
        turns: TurnTokens,
        digest_messages: int = DIGEST_MESSAGES,
    ) -> None:
        """
        Args:
            digest_messages: the length from which on a conversation is put into a shorter digest.
        """
        self._template = template
        self._control = control
        self._turns = turns
        self._digest_messages = digest_messages

    def whole(self, shaped: Shaped, tools: Tools, thinking: bool) -> Rendering:
        """Renders all messages; errors as for `Template.render`."""
        protected = [self._template.protected(message) for message in shaped.messages]
        text = self._template.apply(protected, tools, thinking)
        rendering = Rendering(shaped.exact, text, protected, text)
        return self._digested(rendering, shaped.messages, tools, thinking)

    def continued(
        self,
        before: Rendering,
        shaped: Shaped,
        tools: Tools,
        thinking: bool,
    ) -> Rendering | None:
        """Renders what `shaped` adds to what was rendered `before`; None if that is not all.

        Args:
            tools, thinking: those given before.
        """
        known = len(before.messages)
        if not before.digest or shaped.exact[:known] != before.messages:
            return None
        new = [self._template.protected(message) for message in shaped.messages[known:]]
        digest = [*before.digest, *new]
        try:
            digest_text = self._template.apply(digest, tools, thinking)
        except TemplateRefused:
            return None
        alike = shared_characters(before.digest_text, digest_text)
        ends = self._ends(before.digest_text)
        if not ends or alike < ends[-1]:
            return None
        replaced = len(before.digest_text) - alike
        text = before.text[: len(before.text) - replaced] + digest_text[alike:]
        rendering = Rendering(shaped.exact, text, digest, digest_text)
        return self._digested(rendering, shaped.messages, tools, thinking)

    def _digested(
        self,
        rendering: Rendering,
        messages: Sequence[TemplateMessage],
        tools: Tools,
        thinking: bool,
    ) -> Rendering:
        """The rendering with a digest that is short, if there is one."""
        if len(rendering.digest) <= self._digest_messages:
            return rendering
        without = replace(rendering, digest=[], digest_text="")
        digest = [self._template.protected(message) for message in _digest(messages)]
        try:
            digest_text = self._template.apply(digest, tools, thinking)
        except TemplateRefused:
            return without
        ends = self._ends(digest_text)[-_ALIKE_ENDS:]
        if not ends or not rendering.text.endswith(digest_text[ends[0] :]):
            return without
        return replace(rendering, digest=digest, digest_text=digest_text)

    def _ends(self, text: str) -> list[int]:
        """Where the messages end, in characters."""
        pieces = self._control.split(text)
        offsets = [0]
        for piece in pieces:
            offsets.append(offsets[-1] + len(piece))
        return [offsets[index] for index in self._turns.ends(pieces)]


def _digest(messages: Sequence[TemplateMessage]) -> Iterator[TemplateMessage]:
    """The beginning, the latest group of every kind in its place, and the last two groups."""
    groups = list(_groups(messages))
    latest = {_kind(before, group): n for n, (before, group) in enumerate(groups)}
    first = next((n for n, (_, group) in enumerate(groups) if group[0]["role"] != "system"), 0)
    kept = {*latest.values(), *range(first + 1), *range(max(0, len(groups) - 2), len(groups))}
    for n in sorted(kept):
        yield from groups[n][1]


def _groups(
    messages: Sequence[TemplateMessage],
) -> Iterator[tuple[str, Sequence[TemplateMessage]]]:
    """Each message with the results behind it, and the role before it."""
    starts = [n for n, message in enumerate(messages) if not n or message["role"] != "tool"]
    for start, end in zip(starts, [*starts[1:], len(messages)], strict=True):
        yield (messages[start - 1]["role"] if start else ""), messages[start:end]


def _kind(before: str, group: Sequence[TemplateMessage]) -> _Shape:
    """What a template could tell groups apart by."""
    return (before, min(len(group), 3), *dict.fromkeys(map(_shape, group)))


def _shape(message: TemplateMessage) -> _Shape:
    content = message["content"]
    return (
        message["role"],
        *(key for key in ("name", "reasoning_content") if message.get(key)),
        min(len(message.get("tool_calls", ())), 2),
        not content,
        # Some templates take a user's text that begins with markup for a tool's result.
        message["role"] == "user" and content.startswith("<"),
    )
