"""Answers with calls as the documentation of each family describes them, written here anew."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

# A tool's name and its arguments.
Call = tuple[str, dict[str, Any]]
_BAR: Final = "\uff5c"
_SPACE: Final = "\u2581"
_DSML: Final = f"{_BAR}DSML{_BAR}"


@dataclass(frozen=True)
class Notation:
    """How a family writes an answer."""

    calls: Callable[[Sequence[Call]], str]
    # What stands before a thought and after it.
    thought: tuple[str, str] = ("<think>\n", "\n</think>\n\n")
    # What stands before and after words that precede a call.
    words: tuple[str, str] = ("", "\n")
    # Whether one answer may contain several calls.
    parallel: bool = True


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> str:
    """A string as it is, and anything else as JSON."""
    return value if isinstance(value, str) else _json(value)


def _json_tools(calls: Sequence[Call]) -> str:
    return "\n".join(
        f'<tool_call>\n{{"name": "{name}", "arguments": {_json(given)}}}\n</tool_call>'
        for name, given in calls
    )


def _function_tags(calls: Sequence[Call]) -> str:
    return "\n".join(
        f"<tool_call>\n<function={name}>\n"
        + "".join(f"<parameter={k}>\n{_plain(v)}\n</parameter>\n" for k, v in given.items())
        + "</function>\n</tool_call>"
        for name, given in calls
    )


def _glm(calls: Sequence[Call], line: str = "") -> str:
    return line.join(
        f"<tool_call>{name}{line}"
        + "".join(
            f"<arg_key>{k}</arg_key>{line}<arg_value>{_plain(v)}</arg_value>{line}"
            for k, v in given.items()
        )
        + "</tool_call>"
        for name, given in calls
    )


def _hunyuan(calls: Sequence[Call]) -> str:
    inner = "".join(
        f"<tool_call:opensource>{name}<tool_sep:opensource>\n"
        + "".join(
            f"<arg_key:opensource>{k}</arg_key:opensource>\n"
            f"<arg_value:opensource>{_plain(v)}</arg_value:opensource>\n"
            for k, v in given.items()
        )
        + "</tool_call:opensource>\n"
        for name, given in calls
    )
    return f"<tool_calls:opensource>\n{inner}</tool_calls:opensource>"


def _minimax_m2(calls: Sequence[Call]) -> str:
    inner = "".join(
        f'<invoke name="{name}">\n'
        + "".join(f'<parameter name="{k}">{_plain(v)}</parameter>\n' for k, v in given.items())
        + "</invoke>\n"
        for name, given in calls
    )
    return f"<minimax:tool_call>\n{inner}</minimax:tool_call>"


def _kimi_k2(calls: Sequence[Call]) -> str:
    inner = "".join(
        f"<|tool_call_begin|>functions.{name}:{number}<|tool_call_argument_begin|>{_json(given)}"
        "<|tool_call_end|>"
        for number, (name, given) in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{inner}<|tool_calls_section_end|>"


def _mistral(calls: Sequence[Call]) -> str:
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{_json(given)}" for name, given in calls)


def _mistral_id(calls: Sequence[Call]) -> str:
    return "".join(
        f"[TOOL_CALLS]{name}[CALL_ID]abcdefgh{number}[ARGS]{_json(given)}"
        for number, (name, given) in enumerate(calls)
    )


def _gemma4(calls: Sequence[Call]) -> str:
    return "".join(
        f"<|tool_call>call:{name}{_gemma4_value(given)}<tool_call|>" for name, given in calls
    )


def _gemma4_value(value: Any) -> str:
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_gemma4_value(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_gemma4_value, value)) + "]"
    return _json(value)


def _deepseek_v3(calls: Sequence[Call]) -> str:
    def mark(*words: str) -> str:
        return f"<{_BAR}{_SPACE.join(words)}{_BAR}>"

    inner = "".join(
        mark("tool", "call", "begin")
        + name
        + mark("tool", "sep")
        + _json(given)
        + mark("tool", "call", "end")
        for name, given in calls
    )
    return mark("tool", "calls", "begin") + inner + mark("tool", "calls", "end")


def _dsml(calls: Sequence[Call]) -> str:
    def parameter(key: str, value: Any) -> str:
        is_string = _json(isinstance(value, str))
        return (
            f'<{_DSML}parameter name="{key}" string="{is_string}">{_plain(value)}'
            f"</{_DSML}parameter>\n"
        )

    inner = "".join(
        f'<{_DSML}invoke name="{name}">\n'
        + "".join(parameter(k, v) for k, v in given.items())
        + f"</{_DSML}invoke>\n"
        for name, given in calls
    )
    return f"<{_DSML}function_calls>\n{inner}</{_DSML}function_calls>"


def _harmony(calls: Sequence[Call]) -> str:
    ((name, given),) = calls
    return f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{_json(given)}"


def _apriel(calls: Sequence[Call]) -> str:
    listed = ", ".join(
        f'{{"name": "{name}", "arguments": {_json(given)}}}' for name, given in calls
    )
    return f"\n<tool_calls>[{listed}]</tool_calls>"


def _solar(calls: Sequence[Call]) -> str:
    inner = "".join(
        f"<|tool_call:begin|>a1b2c3d4{number}<|tool_call:name|>{name}<|tool_call:args|>"
        f"{_json(given)}<|tool_call:end|>"
        for number, (name, given) in enumerate(calls)
    )
    return f"<|tool_calls|>{inner}<|calls|>"


def _cohere(calls: Sequence[Call]) -> str:
    inner = ",\n    ".join(
        f'{{"tool_call_id": "{number}", "tool_name": "{name}", "parameters": {_json(given)}}}'
        for number, (name, given) in enumerate(calls)
    )
    return f"<|START_ACTION|>[\n    {inner}\n]<|END_ACTION|>"


def _pythonic(calls: Sequence[Call]) -> str:
    inner = ", ".join(
        f"{name}({', '.join(f'{k}={_python(v)}' for k, v in given.items())})"
        for name, given in calls
    )
    return f"<|tool_call_start|>[{inner}]<|tool_call_end|>"


def _python(value: Any) -> str:
    if isinstance(value, bool | None):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_python, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_json(k)}: {_python(v)}" for k, v in value.items()) + "}"
    return _json(value)


_BRACKETS: Final = ("[THINK]", "[/THINK]")
_BARE_TAGS: Final = ("<think>", "</think>")

NOTATIONS: Final = {
    "json_tools": Notation(_json_tools),
    "function_tags": Notation(_function_tags),
    "glm": Notation(_glm, _BARE_TAGS, ("", "")),
    "glm_lines": Notation(lambda calls: _glm(calls, "\n"), ("<think>", "</think>\n")),
    "hunyuan": Notation(_hunyuan, ("<think:opensource>", "</think:opensource>"), ("", "")),
    "minimax_m2": Notation(_minimax_m2),
    "kimi_k2": Notation(_kimi_k2, _BARE_TAGS, ("", "")),
    "mistral": Notation(_mistral, _BRACKETS, ("", "")),
    "mistral_id": Notation(_mistral_id, words=("", "")),
    "gemma4": Notation(_gemma4, ("<|channel>thought\n", "\n<channel|>"), ("", "")),
    "deepseek_v3": Notation(_deepseek_v3, _BARE_TAGS, ("", "")),
    "dsml": Notation(_dsml, _BARE_TAGS, ("", "\n\n")),
    "apriel": Notation(
        _apriel,
        ("Here are my reasoning steps:\n", "\n[BEGIN FINAL RESPONSE]\n"),
    ),
    "solar": Notation(
        _solar,
        ("<|think|>", "<|end|><|begin|>assistant"),
        ("<|content|>", "<|end|><|begin|>assistant"),
    ),
    "cohere": Notation(
        _cohere,
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    "pythonic": Notation(_pythonic, words=("", "")),
    "harmony": Notation(
        _harmony,
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
        ("<|channel|>commentary<|message|>", "<|end|><|start|>assistant"),
        parallel=False,
    ),
}
