"""The model's chat template: canonical messages in, text out, with content that stays content.

One call of the template per rendering. What the template writes about earlier turns may depend
on later ones (thinking dropped at each new question); where it has a switch against that, the
switch is set, since a prompt that only grows is computed only once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from jinja2 import TemplateError

from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.prompt.canonical import TemplateMessage
from anyclaude.mlx.prompt.control_tokens import ControlTokens

# What templates raise on a conversation they do not take: Jinja's errors, and, from expressions
# in them or from renderers written in Python, those of wrong types and missing keys.
_REFUSALS: Final = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
    NotImplementedError,
)
_KEEP_THINKING: Final = {"clear_thinking": False, "preserve_thinking": True}


class TemplateRefused(Exception):
    """The chat template raised on the conversation; the message is its own."""


class Template:
    """Renders with one tokenizer's chat template."""

    def __init__(self, tokenizer: TokenizerWrapper, control: ControlTokens) -> None:
        """
        Raises:
            ValueError: the model has no chat template.
        """
        if not tokenizer.has_chat_template:
            raise ValueError(
                "the model has no chat template, so a conversation cannot be put to it; "
                "configure an instruction-tuned model (its folder holds chat_template.jinja)"
            )
        self._apply_template: Callable[..., str] = tokenizer.apply_chat_template
        self._control = control
        source = template_source(tokenizer)
        self._switches = {key: on for key, on in _KEEP_THINKING.items() if key in source}
        reads_thinking = "message.thinking" in source and "reasoning_content" not in source
        self._reasoning_key = "thinking" if reads_thinking else "reasoning_content"

    def render(
        self,
        messages: Sequence[TemplateMessage],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        thinking: bool = False,
        answer: bool = True,
        unfinished: bool = False,
    ) -> str:
        """The conversation as text.

        Args:
            messages: in an order and with roles that the template takes.
            tools: protected already, since they hardly ever change.
            thinking: what a template that knows `enable_thinking` is told.
            answer: end with the header of an assistant turn.
            unfinished: end inside the last message's content, for the model to go on with. A
                template that does not print the content as it stands gives the whole turn.

        Raises:
            TemplateRefused: the template does not take this conversation.
        """
        protected = [self.protected(message) for message in messages]
        if unfinished:
            protected[-1]["content"] += self._control.end
        text = self.apply(protected, tools, thinking, answer=answer and not unfinished)
        return text.rpartition(self._control.end)[0] or text if unfinished else text

    def apply(
        self,
        messages: Sequence[TemplateMessage],
        tools: Sequence[Mapping[str, Any]],
        thinking: bool,
        answer: bool = True,
    ) -> str:
        """`render` for messages that are protected already."""
        try:
            return self._apply_template(
                list(messages),
                tools=list(tools) or None,
                tokenize=False,
                add_generation_prompt=answer,
                enable_thinking=thinking,
                **self._switches,
            )
        except _REFUSALS as error:
            raise TemplateRefused(str(error) or type(error).__name__) from error

    def protected(self, message: TemplateMessage) -> TemplateMessage:
        """The message with protected content; its roles and keys are not content."""
        protect = self._control.protect
        result = {"role": message["role"], "content": protect(message["content"])}
        if "reasoning_content" in message:
            result[self._reasoning_key] = protect(message["reasoning_content"])
        if "tool_calls" in message:
            result["tool_calls"] = [
                {**call, "id": protect(call["id"]), "function": self._fields(call["function"])}
                for call in message["tool_calls"]
            ]
        return result | {
            key: protect(message[key]) for key in ("tool_call_id", "name") if key in message
        }

    def protected_tools(self, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**tool, "function": self._fields(tool["function"])} for tool in tools]

    def _fields(self, function: Mapping[str, Any]) -> dict[str, Any]:
        """A function with its own keys as they are, and all below them protected."""
        return {key: self._control.protect(value) for key, value in function.items()}


def template_source(tokenizer: TokenizerWrapper) -> str:
    """The text of the template or templates; empty for a renderer written in Python."""
    template = tokenizer.chat_template
    if isinstance(template, Mapping):
        return "".join(template.values())
    return template or ""
