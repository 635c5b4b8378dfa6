"""Which documented shapes of calls the grammar allows, for real templates and vocabularies.

    python -m tests.real.call_shapes FOLDER

FOLDER is that of `python -m tests.real.material`. Each shape is written in the notation of the
family, token by token. A family without a notation has no grammar, so its calls are free.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.adapter import TokenizerWrapper
from anyclaude.mlx.decode.constraint import ConstraintCompiler
from anyclaude.mlx.decode.notation import JsonNotation
from anyclaude.mlx.decode.notations import notation_of
from tests.models.odd_schemas import INTEGER, STRING, obj
from tests.models.written_calls import reading, written_calls
from tests.real.families import FAMILIES, load

Call = tuple[str, Mapping[str, Any]]

_OPTION: Final = obj("label", label=STRING, description=STRING)
TOOLS: Final = [
    Tool(
        name="Bash",
        input_schema=obj(
            "command",
            command=STRING,
            timeout={"type": "number"},
            description=STRING,
            quiet={"type": "boolean"},
            level={"enum": ["low", "high", 3, None]},
            env={"type": "object", "additionalProperties": STRING},
            paths={"type": "array", "items": STRING},
            options={"type": "array", "items": _OPTION},
            note={"type": ["string", "null"]},
            **{"-n": INTEGER},
        ),
    ),
    Tool(name="Status", input_schema=obj()),
]
_LONG: Final = 'echo "a\\n" <<EOF\n  {"b": [1]}\n</parameter> </b>\nEOF\n'


def bash(**arguments: Any) -> Call:
    return "Bash", arguments


SHAPES: Final[dict[str, list[Call]]] = {
    "one argument": [bash(command="ls")],
    "in the schema's order": [bash(command="ls", timeout=5, description="d")],
    "optional ones swapped": [bash(command="ls", description="d", timeout=5)],
    "required one last": [bash(description="d", timeout=5, command="ls")],
    "required one in the middle": [bash(quiet=True, command="ls", timeout=5)],
    "no arguments": [("Status", {})],
    "true and false": [bash(command="ls", quiet=False)],
    "null": [bash(command="ls", level=None)],
    "text or null": [bash(command="ls", note="n")],
    "enumeration": [bash(level="high", command="ls")],
    "number in an enumeration": [bash(level=3, command="ls")],
    "float": [bash(command="ls", timeout=0.25)],
    "negative integer": [bash(command="ls", **{"-n": -12})],
    "large integer": [bash(command="ls", timeout=600000)],
    "list": [bash(command="ls", paths=["a", "b c"])],
    "empty list": [bash(command="ls", paths=[])],
    "free object": [bash(command="ls", env={"B": "1", "A": "2"})],
    "nested, in order": [bash(command="ls", options=[{"label": "l", "description": "d"}])],
    "nested, swapped": [bash(options=[{"description": "d", "label": "l"}], command="ls")],
    "long text with markup": [bash(command=_LONG)],
    "other scripts": [bash(command="größe 言語 🟡")],
    "empty text": [bash(command="")],
    "two calls of one tool": [bash(command="ls"), bash(command="pwd")],
    "calls of several tools": [bash(timeout=5, command="ls"), ("Status", {}), bash(command="pwd")],
}


def shapes_of(wrapper: TokenizerWrapper) -> Mapping[str, Sequence[Call]]:
    """The shapes that a family can write: if a call ends the answer, there is only one."""
    notation = notation_of(wrapper)
    if not (isinstance(notation, JsonNotation) and notation.is_message):
        return SHAPES
    return {shape: calls for shape, calls in SHAPES.items() if len(calls) == 1}


def forbidden(wrapper: TokenizerWrapper) -> dict[str, str]:
    """The shapes that the grammar does not allow, each up to the token that it forbids."""
    compiler = ConstraintCompiler(wrapper)
    found = {}
    for shape, calls in shapes_of(wrapper).items():
        made = compiler.compile(TOOLS, ToolChoice(), None, in_thinking=False, may_think=False)
        assert made is not None
        refused = reading(made, wrapper, written_calls(wrapper, calls), read=False).refused
        if refused is not None:
            found[shape] = refused
    return found


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0])
    for family in FAMILIES:
        if not family.first:
            continue
        wrapper = load(folder, family)
        if notation_of(wrapper) is None:
            print(f"{family.template:45} no grammar")
            continue
        found, tried = forbidden(wrapper), len(shapes_of(wrapper))
        print(f"{family.template:45} {tried - len(found)} of {tried}", flush=True)
        for shape, refused in found.items():
            print(f"    {shape}: {refused[-60:]!r}")


if __name__ == "__main__":
    main(sys.argv[1:])
