"""Renders messages with the model's chat template.

What a template writes for earlier turns may depend on later ones: many drop earlier thinking at
each new question. If the template has a switch against that, the switch is set, because a prompt to
which text is only appended is computed only once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from jinja2 import TemplateError

from anyclaude.messages.readable import join
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.prompt.canonical import TemplateMessage
from anyclaude.mlx.prompt.control_tokens import ControlTokens
from anyclaude.mlx.prompt.left_out import Additions, LeftOut
from anyclaude.mlx.prompt.pieces import shared_characters
from anyclaude.mlx.prompt.template_source import TemplateSource
from anyclaude.mlx.prompt.tool_schemas import describable

# What templates raise on a conversation that they do not accept: Jinja's errors, and errors of
# wrong types and missing keys from expressions in templates and from renderers written in Python.
# A template that describes tools by recursion may not end for a schema that it does not expect.
_REFUSALS: Final = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
    RecursionError,
    NotImplementedError,
)
# Clients may send half a pair of surrogates.
_SURROGATES: Final = "surrogatepass"
_KEEP_THINKING: Final = {
    "clear_thinking": False,
    "preserve_thinking": True,
    "keep_past_thinking": True,
    "truncate_history_thinking": False,
}
# How templates without `enable_thinking` are told whether to think: the variable, and its values
# for yes and no. The last is in the template.
_THINKING: Final = (
    ("reasoning_effort", "high", "no_think"),
    ("reasoning_effort", "high", "minimal"),
    ("reasoning_effort", "high", "none"),
    ("thinking_mode", "enabled", "disabled"),
)


class TemplateRefused(Exception):
    """The chat template does not accept the conversation; the message is the template's own."""


@dataclass(frozen=True)
class Variables:
    """What a template reads besides messages and tools."""

    # The value of `enable_thinking`, or of what the template has instead.
    thinking: bool = False
    # The date that it writes; None for the date of the clock.
    today: date | None = None


class Template:
    """The chat template of one tokenizer."""

    def __init__(self, tokenizer: TokenizerWrapper, control: ControlTokens) -> None:
        """Raises ValueError if the model has no chat template."""
        if not tokenizer.has_chat_template:
            raise ValueError(
                "the model has no chat template, so it cannot be given a conversation; "
                "configure an instruction-tuned model (its folder holds chat_template.jinja)"
            )
        self._apply_template: Callable[..., str] = tokenizer.apply_chat_template
        self._control = control
        self._source = TemplateSource(tokenizer)
        source = self._source.text
        self._switches = {key: on for key, on in _KEEP_THINKING.items() if key in source}
        self._thinking = _thinking_switch(source)
        reads_thinking = "message.thinking" in source and "reasoning_content" not in source
        # Set once, when the model is loaded.
        self._pins_tools = False
        self._left_out = LeftOut()
        self._additions = Additions(tokenizer)
        opened, closed = control.aside
        self._aside = re.compile(f"{opened}(.*?){opened}(.*?){closed}", re.DOTALL)
        self._reasoning_key = "thinking" if reads_thinking else "reasoning_content"

    @property
    def reads_clock(self) -> bool:
        """Whether the template writes the current date."""
        return self._source.reads_clock

    def pin_tools(self) -> None:
        """From now on, describes tools before the first user message, wherever the template does.

        Where the template describes them before the last one, each new question would move them,
        and everything behind their old place would be computed again.
        """
        self._pins_tools = True

    @property
    def can_describe_tools(self) -> bool:
        """Whether tools can be described where the template does not do it."""
        return self._additions.describes_tools

    def add(self, left_out: LeftOut) -> None:
        """From now on, adds what the template leaves out."""
        self._left_out = left_out

    def render(
        self,
        messages: Sequence[TemplateMessage],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        variables: Variables = Variables(),
        answer: bool = True,
        unfinished: bool = False,
    ) -> str:
        """The conversation as text.

        `messages` are what `Dialect.adapt` returns, `tools` what `protected_tools` returns. The
        text ends with the header of an assistant turn if `answer`. If `unfinished`, it ends inside
        the last message's content, which the model then continues; if the template does not print
        the content unchanged, the whole turn is rendered.

        Raises:
            TemplateRefused: the template does not accept this conversation.
        """
        protected = [self.protected(message) for message in messages]
        if unfinished:
            protected[-1]["content"] += self._control.end
        text = self.apply(protected, tools, variables, answer=answer and not unfinished)
        return text.rpartition(self._control.end)[0] or text if unfinished else text

    def apply(
        self,
        messages: Sequence[TemplateMessage],
        tools: Sequence[Mapping[str, Any]],
        variables: Variables,
        answer: bool = True,
    ) -> str:
        """The same as `render`, for messages that are protected already."""
        if not (self._pins_tools and tools):
            return self._apply(messages, tools, variables, answer)
        roles = [message["role"] for message in messages]
        first = messages[: roles.index("user") + 1] if "user" in roles else messages
        plain = self._apply(first, (), variables, answer=True)
        shown = self._apply(first, tools, variables, answer=True)
        place = shared_characters(plain, shown)
        added = shown[place : place + len(shown) - len(plain)]
        text = self._apply(messages, (), variables, answer)
        if plain[:place] + added + plain[place:] != shown or text[:place] != plain[:place]:
            # More than the description of the tools depends on them.
            return self._apply(messages, tools, variables, answer)
        return text[:place] + added + text[place:]

    def _apply(
        self,
        messages: Sequence[TemplateMessage],
        tools: Sequence[Mapping[str, Any]],
        variables: Variables,
        answer: bool,
    ) -> str:
        if self._left_out.tools and tools:
            messages = self._with_tools(messages, tools)
        try:
            text = self._apply_template(
                list(messages),
                tools=list(tools) or None,
                tokenize=False,
                add_generation_prompt=answer,
                enable_thinking=variables.thinking,
                **self._thinking[variables.thinking],
                **self._switches,
                **self._source.variables(variables.today, tools=bool(tools)),
            )
        except _REFUSALS as error:
            raise TemplateRefused(str(error) or type(error).__name__) from error
        return self._with_words(text) if self._left_out.words else text

    def _with_tools(
        self, messages: Sequence[TemplateMessage], tools: Sequence[Mapping[str, Any]]
    ) -> list[TemplateMessage]:
        """The messages, with a description of the tools at the end of the system prompt."""
        described = self._additions.tools([tool["function"] for tool in tools])
        has_system = bool(messages) and messages[0]["role"] == "system"
        before = messages[0]["content"] if has_system else ""
        system = {"role": "system", "content": join([before, described])}
        return [system, *messages[has_system:]]

    def _with_words(self, text: str) -> str:
        """The rendered text, with the words of each call before the control token of the call.

        The words are in the name of the call (`_with_aside`). The template of gpt-oss prints that
        name beside the result too, from where the words are removed.
        """
        opening, closing = self._additions.around_words
        parts: list[str] = []
        at, last = 0, None
        for found in self._aside.finditer(text):
            before = text[at : found.start()]
            if found[0] != last:
                *_, token, tail = ["", *self._control.split(before)]
                place = len(before) - len(token + tail)
                words = bytes.fromhex(found[2]).decode(errors=_SURROGATES)
                before = f"{before[:place]}{opening}{words}{closing}{before[place:]}"
            parts.append(before)
            at, last = found.end(), found[0]
        return "".join([*parts, text[at:]])

    def protected(self, message: TemplateMessage) -> TemplateMessage:
        """The message with its content protected; role and keys are not content."""
        protect = self._control.protect
        result = {"role": message["role"], "content": protect(message["content"])}
        if "reasoning_content" in message:
            result[self._reasoning_key] = protect(message["reasoning_content"])
        if "tool_calls" in message:
            calls = [
                {**call, "id": protect(call["id"]), "function": self._fields(call["function"])}
                for call in message["tool_calls"]
            ]
            if self._left_out.calls:
                written = self._additions.calls([call["function"] for call in calls])
                result["content"] += written
            else:
                if self._left_out.words and result["content"]:
                    calls[0] = self._with_aside(calls[0], result["content"])
                    result["content"] = ""
                result["tool_calls"] = calls
        return result | {
            key: protect(message[key]) for key in ("tool_call_id", "name") if key in message
        }

    def _with_aside(self, call: dict[str, Any], words: str) -> dict[str, Any]:
        """The call with words beside it in its name, which are moved when it is rendered.

        They are in hexadecimal digits, since some templates print the name as JSON.
        """
        opened, closed = self._control.aside
        function, written = call["function"], words.encode(errors=_SURROGATES).hex()
        name = f"{opened}{call['id']}{opened}{written}{closed}{function['name']}"
        return {**call, "function": {**function, "name": name}}

    def printable_tools(
        self,
        tools: Sequence[Mapping[str, Any]],
        messages: Sequence[TemplateMessage],
        variables: Variables,
    ) -> list[dict[str, Any]]:
        """The tools as `protected_tools` returns them, simplified where the template fails.

        The template accepts `messages` without tools.
        """

        def prints(some: Sequence[Mapping[str, Any]]) -> bool:
            try:
                return bool(self.render(messages, self.protected_tools(some), variables=variables))
            except TemplateRefused:
                return False

        return self.protected_tools(describable(tools, prints))

    def protected_tools(self, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**tool, "function": self._fields(tool["function"])} for tool in tools]

    def _fields(self, function: Mapping[str, Any]) -> dict[str, Any]:
        """A function whose values are protected, but not its own keys."""
        return {key: self._control.protect(value) for key, value in function.items()}


def _thinking_switch(source: str) -> tuple[dict[str, str], dict[str, str]]:
    """What turns thinking off, and what turns it on, beside `enable_thinking`."""
    for variable, on, off in _THINKING:
        if variable in source and re.search(f"""['"]{off}['"]""", source):
            return {variable: off}, {variable: on}
    return {}, {}
