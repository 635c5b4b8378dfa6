"""Tools whose schemas a template cannot print, and templates that change their lists."""

from typing import Any

import pytest

from anyclaude.mlx.prompt import PromptRenderer
from tests.models.requests import BASH, Block, assistant, call, request, result, user
from tests.models.templates import CHATML
from tests.models.tokenizers import byte_level, wrap

_SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
# Translates types as the templates of Hermes do: any other type is taken for a list of types.
_RECURSIVE = """
{%- macro kind(spec) %}
{%- set known = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
{%- if known[spec.type] is defined %}{{- known[spec.type] }}
{%- elif spec.type == "array" %}{{- "list" }}
{%- elif spec.type == "object" %}{{- "dict" }}
{%- elif spec.type is iterable %}
{%- for one in spec.type %}{{- kind({"type": one}) }}{{- "|" if not loop.last }}{%- endfor %}
{%- else %}{{- "Any" }}{%- endif %}
{%- endmacro %}
{%- for tool in tools or [] %}
{{- "<|im_start|>" + tool.function.name + " " + tool.function.description }}
{%- for name, spec in tool.function.parameters.properties|items %}
{{- " " + name + ":" + kind(spec) }}
{%- endfor %}
{{- "<|im_end|>" }}
{%- endfor %}
"""
# Fails at each type that it does not know, and at each parameter without a type.
_STRICT = """
{%- for tool in tools or [] %}
{{- "<|im_start|>" + tool.function.name + " " + tool.function.description }}
{%- for name, spec in tool.function.parameters.properties|items %}
{{- " " + name + ":" + {"string": "str", "integer": "int"}[spec.type] }}
{%- endfor %}
{{- "<|im_end|>" }}
{%- endfor %}
"""


def _prompt(template: str, properties: dict[str, Any]) -> str:
    tokens = wrap(byte_level(), template + CHATML, _SPECIAL)
    odd: Block = {
        "name": "Odd",
        "description": "Is odd.",
        "input_schema": {"type": "object", "properties": properties},
    }
    prompt = PromptRenderer(tokens).render(request(user("hi"), tools=[BASH, odd]))
    return str(tokens.decode(prompt.token_ids.tolist()))


@pytest.mark.parametrize(
    ("schema", "printed"),
    [
        ({"type": ["string", "null"]}, "x:str"),
        ({"type": ["string", "null", "integer"]}, "x:str|int"),
        ({"type": "null"}, "x:"),
        ({"type": ["null"]}, "x:"),
        ({"type": "any"}, "x:"),
        ({"type": ["array", "null"], "items": {"type": "null"}}, "x:list"),
        ({"type": "string"}, "x:str"),
        ({"enum": ["a", "b"]}, "x:"),
    ],
)
def test_a_template_that_never_ends_gets_types_that_it_knows(
    schema: dict[str, Any], printed: str
) -> None:
    """The odd tool is printed without the odd type, and the tool beside it as it is."""
    prompt = _prompt(_RECURSIVE, {"x": schema, "y": {"type": "integer"}})

    assert "<|im_start|>Bash Runs a command. command:str<|im_end|>" in prompt
    assert f"<|im_start|>Odd Is odd. {printed} y:int<|im_end|>" in prompt


def test_a_property_called_type_stays() -> None:
    """Only the keyword `type` is simplified, not a property of that name."""
    prompt = _prompt(_RECURSIVE, {"type": {"type": "string"}, "x": {"type": "null"}})
    assert "Odd Is odd. type:str x:<|im_end|>" in prompt


@pytest.mark.parametrize("schema", [{"type": "number"}, {"anyOf": [{"type": "string"}]}, {}])
def test_what_cannot_be_printed_otherwise_is_described(schema: dict[str, Any]) -> None:
    """The schema of a tool that no simplification helps is a part of its description."""
    prompt = _prompt(_STRICT, {"x": schema})

    assert "<|im_start|>Bash Runs a command. command:str<|im_end|>" in prompt
    assert "<|im_start|>Odd Is odd.\nIts arguments follow this JSON schema: " in prompt
    assert '"x": ' in prompt


_LISTS = {
    "append": (
        "{%- set queue = namespace(ids=[]) -%}"
        "{%- for m in messages -%}{%- for call in m.tool_calls or [] -%}"
        "{%- set _ = queue.ids.append(call.id) -%}{%- endfor -%}{%- endfor -%}"
        "<|im_start|>{{ queue.ids | join(',') }}<|im_end|>"
    ),
    "plain list": (
        "{%- set ids = [] -%}"
        "{%- for m in messages -%}{%- for call in m.tool_calls or [] -%}"
        "{%- set _ = ids.append(call.id) -%}{%- endfor -%}{%- endfor -%}"
        "<|im_start|>{{ ids | join(',') }}<|im_end|>"
    ),
    "pop": (
        "{%- set ids = ['t0', 't1', 't2'] -%}{%- set _ = ids.pop(0) -%}"
        "<|im_start|>{{ ids | join(',') }}<|im_end|>"
    ),
    "extend": (
        "{%- set ids = [] -%}{%- set _ = ids.extend(['t1', 't2']) -%}"
        "<|im_start|>{{ ids | join(',') }}<|im_end|>"
    ),
    "insert": (
        "{%- set ids = ['t2'] -%}{%- set _ = ids.insert(0, 't1') -%}"
        "<|im_start|>{{ ids | join(',') }}<|im_end|>"
    ),
}


@pytest.mark.parametrize("kind", _LISTS)
def test_a_template_may_change_its_lists(kind: str) -> None:
    """Templates that collect ids in a list render; their changes stay theirs."""
    tokens = wrap(byte_level(), _LISTS[kind] + CHATML, _SPECIAL)
    renderer = PromptRenderer(tokens)
    body = request(
        user("hi"),
        assistant(call("t1"), call("t2")),
        user(result("t1"), result("t2")),
        tools=[BASH],
    )
    for _ in range(2):
        text = str(tokens.decode(renderer.render(body).token_ids.tolist()))
        assert text.startswith("<|im_start|>t1,t2<|im_end|>")


@pytest.mark.parametrize(
    "attack",
    [
        "{{ [].__class__.__mro__ }}",
        "{{ messages.append.__self__.pop() }}",
        "{%- set _ = {}.update({'a': 1}) -%}",
        "{%- set _ = messages[0].pop('role') -%}",
        "{%- set _ = messages.clear() -%}",
    ],
)
def test_nothing_else_is_allowed(attack: str) -> None:
    """The rest of the sandbox stays: such a template is refused as before."""
    tokens = wrap(byte_level(), "{%- set _ = [].append(1) -%}" + attack + CHATML, _SPECIAL)
    with pytest.raises(Exception, match="refuses"):
        PromptRenderer(tokens).render(request(user("hi")))
