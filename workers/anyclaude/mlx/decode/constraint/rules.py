"""The grammar rules of a tool call, in every notation."""

from collections.abc import Sequence

from anyclaude.mlx.decode.bare_keys import escaped
from anyclaude.mlx.decode.constraint.lark import Lark
from anyclaude.mlx.decode.constraint.members import MemberRules
from anyclaude.mlx.decode.constraint.parameters import Parameter
from anyclaude.mlx.decode.constraint.schemas import Schema
from anyclaude.mlx.decode.constraint.values import BareValues, JsonValues, PythonValues
from anyclaude.mlx.decode.notation import BareKeyNotation, JsonNotation, Notation


def call_rule(
    lark: Lark,
    notation: Notation,
    name: str,
    schema: Schema,
    parameters: Sequence[Parameter],
) -> str:
    """The rule for one tool's call, from its name to the end of its arguments.

    Raises:
        NotExpressibleError: the notation cannot express the schema.
    """
    match notation:
        case BareKeyNotation():
            arguments = BareValues(lark, notation.quote, schema).rule(schema)
            return lark.rule(f"{lark.literal(name)} {arguments}")
        case JsonNotation():
            head = lark.literal(escaped(name))
            between = lark.parts(notation.before_arguments)
            return lark.rule(f"{head} {between} {JsonValues(lark, schema).rule(schema)}")
    head = f"{lark.literal(name)} {lark.parts(notation.after_name)}"
    json = (JsonValues if notation.plain_strings else PythonValues)(lark, schema).rule
    return lark.rule(f"{head} {MemberRules(lark, notation, parameters, json).rule()}")


def any_call_rule(lark: Lark, notation: Notation, calls: Sequence[str]) -> str:
    """The rule for one of `calls`, with the texts that surround every call."""
    call = f"{lark.literal(notation.before_name)} ({' | '.join(calls)})"
    if isinstance(notation, JsonNotation):
        before, after = notation.before_all, notation.after_arguments
        call = f"{lark.parts(before)} {call} {lark.parts(after)}"
    return lark.rule(call)
