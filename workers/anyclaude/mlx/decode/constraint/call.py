"""The grammar of a call: its name and arguments, in any of the shapes."""

import json
from collections.abc import Sequence

from anyclaude.mlx.decode.constraint.bare_keys import Notation
from anyclaude.mlx.decode.constraint.lark import Lark
from anyclaude.mlx.decode.constraint.parameters import Parameter
from anyclaude.mlx.decode.constraint.rules import TaggedArguments
from anyclaude.mlx.decode.constraint.schemas import Schema
from anyclaude.mlx.decode.notations import JsonShape, NotationShape, Shape


def call(lark: Lark, shape: Shape, name: str, schema: Schema, known: list[Parameter] | None) -> str:
    """The rule for one tool's call, from its name to the end of its arguments.

    Args:
        known: the arguments, for a tagged shape.
    """
    if isinstance(shape, NotationShape):
        return lark.rule(f"{lark.literal(name)} {Notation(lark, shape.quote, schema).rule()}")
    if isinstance(shape, JsonShape):
        head = lark.literal(json.dumps(name, ensure_ascii=False)[1:-1])
        return lark.rule(f"{head} {lark.parts(shape.before_arguments)} {lark.json(schema)}")
    head = f"{lark.literal(name)} {lark.parts(shape.after_name)}"
    if known is None:
        return lark.rule(f"{head} {lark.json(schema)} {lark.literal(shape.after_arguments)}")
    return lark.rule(f"{head} {TaggedArguments(lark, shape, known).rule()}")


def calls(lark: Lark, shape: Shape, rules: Sequence[str]) -> str:
    """The rule for any one of some calls, between the marks that are there once for each."""
    after = lark.literal(shape.after_arguments) if isinstance(shape, JsonShape) else ""
    return lark.rule(f"{lark.literal(shape.before_name)} ({' | '.join(rules)}) {after}")
