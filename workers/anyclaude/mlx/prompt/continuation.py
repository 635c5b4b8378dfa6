"""Continues the rendering of a conversation, so that a new turn costs only that turn.

What a template prints for old messages may depend on new ones (many drop thinking at each new
question), so the text of new messages cannot just be appended. Therefore a *digest* represents the
conversation: its beginning, the latest group of messages of each kind, and its end. Rendered with
and without the new messages, the digest shows what they change. If they only add text at its end,
they add the same text to the whole conversation. If they change anything before it, or if the end
of the digest differs from the end of the whole text, the whole conversation is rendered. A short
conversation is its own digest.

Whether this works for a template is tested when the model is loaded (`probe.can_continue`). That
test cannot find a template that changes its behaviour only in conversations longer than the test's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from anyclaude.mlx.prompt.canonical import TemplateMessage
from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.prompt.cuts import TurnTokens
from anyclaude.mlx.prompt.dialect import AdaptedMessages
from anyclaude.mlx.prompt.pieces import shared_characters
from anyclaude.mlx.prompt.template import Template, TemplateRefused, Variables

DIGEST_MESSAGES: Final = 32
# Digest and whole text must be equal from this many message ends before their end.
_EQUAL_ENDS: Final = 3

Tools = Sequence[Mapping[str, Any]]
_Properties = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Rendering:
    """A rendered conversation."""

    # Each message as `exact_bytes`.
    messages: list[bytes]
    text: str
    # Protected messages; empty if no digest represents the conversation.
    digest: list[TemplateMessage]
    digest_text: str


class Continuation:
    """Renders conversations up to the header of the next answer."""

    def __init__(
        self,
        template: Template,
        control: ControlTokens,
        turns: TurnTokens,
        digest_messages: int = DIGEST_MESSAGES,
    ) -> None:
        """A conversation with more than `digest_messages` gets a shorter digest."""
        self._template = template
        self._control = control
        self._turns = turns
        self._digest_messages = digest_messages

    def text(self, adapted: AdaptedMessages, tools: Tools, variables: Variables) -> str:
        """All messages as text; errors as for `Template.render`."""
        return self._template.render(adapted.messages, tools, variables=variables)

    def whole(self, adapted: AdaptedMessages, tools: Tools, variables: Variables) -> Rendering:
        """Renders all messages; errors as for `Template.render`."""
        protected = [self._template.protected(message) for message in adapted.messages]
        text = self._template.apply(protected, tools, variables)
        rendering = Rendering(adapted.exact, text, protected, text)
        return self._digested(rendering, adapted.messages, tools, variables)

    def continued(
        self,
        before: Rendering,
        adapted: AdaptedMessages,
        tools: Tools,
        variables: Variables,
    ) -> Rendering | None:
        """Continues a rendering of the first messages, with the same tools and variables.

        None if the conversation has to be rendered as a whole.
        """
        known = len(before.messages)
        if not before.digest or adapted.exact[:known] != before.messages:
            return None
        new = [self._template.protected(message) for message in adapted.messages[known:]]
        digest = [*before.digest, *new]
        try:
            digest_text = self._template.apply(digest, tools, variables)
        except TemplateRefused:
            return None
        shared = shared_characters(before.digest_text, digest_text)
        ends = self._ends(before.digest_text)
        if not ends or shared < ends[-1]:
            return None
        replaced = len(before.digest_text) - shared
        text = before.text[: len(before.text) - replaced] + digest_text[shared:]
        rendering = Rendering(adapted.exact, text, digest, digest_text)
        return self._digested(rendering, adapted.messages, tools, variables)

    def _digested(
        self,
        rendering: Rendering,
        messages: Sequence[TemplateMessage],
        tools: Tools,
        variables: Variables,
    ) -> Rendering:
        """The rendering with a short digest, or with none if no digest represents it."""
        if len(rendering.digest) <= self._digest_messages:
            return rendering
        without = replace(rendering, digest=[], digest_text="")
        digest = [self._template.protected(message) for message in _digest(messages)]
        try:
            digest_text = self._template.apply(digest, tools, variables)
        except TemplateRefused:
            return without
        ends = self._ends(digest_text)[-_EQUAL_ENDS:]
        if not ends or not rendering.text.endswith(digest_text[ends[0] :]):
            return without
        return replace(rendering, digest=digest, digest_text=digest_text)

    def _ends(self, text: str) -> list[int]:
        """The offsets in characters at which messages end."""
        pieces = self._control.split(text)
        offsets = [0]
        for piece in pieces:
            offsets.append(offsets[-1] + len(piece))
        return [offsets[index] for index in self._turns.ends(pieces)]


def _digest(messages: Sequence[TemplateMessage]) -> Iterator[TemplateMessage]:
    """The first groups of messages, the latest group of each kind, and the last two groups."""
    groups = list(_groups(messages))
    latest = {_kind(before, group): n for n, (before, group) in enumerate(groups)}
    first = next((n for n, (_, group) in enumerate(groups) if group[0]["role"] != "system"), 0)
    kept = {*latest.values(), *range(first + 1), *range(max(0, len(groups) - 2), len(groups))}
    for n in sorted(kept):
        yield from groups[n][1]


def _groups(
    messages: Sequence[TemplateMessage],
) -> Iterator[tuple[str, Sequence[TemplateMessage]]]:
    """Each message with the results after it, and the role of the message before it."""
    starts = [n for n, message in enumerate(messages) if not n or message["role"] != "tool"]
    for start, end in zip(starts, [*starts[1:], len(messages)], strict=True):
        yield (messages[start - 1]["role"] if start else ""), messages[start:end]


def _kind(before: str, group: Sequence[TemplateMessage]) -> _Properties:
    """The properties by which a template could treat groups differently."""
    return (before, min(len(group), 3), *dict.fromkeys(map(_properties, group)))


def _properties(message: TemplateMessage) -> _Properties:
    content = message["content"]
    return (
        message["role"],
        *(key for key in ("name", "reasoning_content") if message.get(key)),
        min(len(message.get("tool_calls", ())), 2),
        not content,
        # Some templates treat a user's text that begins with markup as a tool's result.
        message["role"] == "user" and content.startswith("<"),
    )
