"""What some chat templates leave out of a prompt, written as the model's documentation writes it.

Some templates do not describe the tools (DeepSeek-V3.1), do not print earlier calls (LFM2), or do
not print the words beside a call (Mistral-Small-3.2, gpt-oss). `probe.py` finds out which of these
a template leaves out; `template.py` then adds it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.mlx.adapter import TokenizerWrapper, parser_family

Functions = Sequence[Mapping[str, Any]]

# Source: "Toolcall" in the model card of DeepSeek-V3.1.
_DEEPSEEK_TOOLS: Final = """## Tools
You have access to the following tools:

{tools}

IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments\
<｜tool▁call▁end｜>{{additional_tool_calls}}<｜tool▁calls▁end｜>

Where:

- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
"""
_DESCRIPTIONS: Final = {"deepseek_v3": _DEEPSEEK_TOOLS}
# What stands before and after words beside a call. Source: "Preambles" in the documentation of
# harmony, the format of gpt-oss.
_AROUND_WORDS: Final = {
    "harmony": ("<|start|>assistant<|channel|>commentary<|message|>", "<|end|>")
}


@dataclass(frozen=True)
class LeftOut:
    """What has to be added for one template."""

    tools: bool = False
    calls: bool = False
    words: bool = False


class Additions:
    """Writes what a template leaves out. Values are given protected, and control tokens are not."""

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._family = parser_family(tokenizer)
        self._call_start = tokenizer.tool_call_start or ""
        self._call_end = tokenizer.tool_call_end or ""
        # What stands before and after words beside a call.
        self.around_words = _AROUND_WORDS.get(self._family, ("", ""))

    @property
    def describes_tools(self) -> bool:
        """Whether it is known how to describe tools to the model."""
        return self._family in _DESCRIPTIONS

    def tools(self, functions: Functions) -> str:
        """The description of the tools in the system prompt."""
        return _DESCRIPTIONS[self._family].format(tools="\n\n".join(map(_described, functions)))

    def calls(self, functions: Functions) -> str:
        """The calls of one answer."""
        listed = ", ".join(map(_pythonic if self._family == "pythonic" else _json_call, functions))
        return f"{self._call_start}[{listed}]{self._call_end}"


def _described(function: Mapping[str, Any]) -> str:
    return (
        f"### {function['name']}\nDescription: {function['description']}\n\n"
        f"Parameters: {_json(function['parameters'])}"
    )


def _json_call(function: Mapping[str, Any]) -> str:
    return _json({"name": function["name"], "arguments": function["arguments"]})


def _pythonic(function: Mapping[str, Any]) -> str:
    written = function["arguments"].items()
    return f"{function['name']}({', '.join(f'{key}={_python(value)}' for key, value in written)})"


def _python(value: Any) -> str:
    match value:
        case bool() | None:
            return repr(value)
        case list():
            return f"[{', '.join(map(_python, value))}]"
        case dict():
            items = (f"{_json(key)}: {_python(item)}" for key, item in value.items())
            return f"{{{', '.join(items)}}}"
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
