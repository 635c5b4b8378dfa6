"""The grammar of arguments that stand each between marks of its own."""

from collections.abc import Sequence

from anyclaude.mlx.decode.constraint.lark import Lark, quoted
from anyclaude.mlx.decode.constraint.parameters import Choice, Form, Json, Parameter, Plain
from anyclaude.mlx.decode.notations import TaggedShape


class TaggedArguments:
    """The rules for the arguments of one tool, in the order of its schema."""

    def __init__(self, lark: Lark, shape: TaggedShape, parameters: Sequence[Parameter]) -> None:
        self._lark = lark
        self._shape = shape
        self._parameters = parameters
        self._from: dict[int, str] = {}

    def rule(self) -> str:
        options = []
        if self._parameters:
            options.append(f"{self._lark.literal(self._shape.before_key)} {self._key_from(0)}")
        if self._may_end(0):
            options.append(self._lark.literal(self._shape.after_arguments) or '""')
        return self._lark.alternatives(options)

    def _may_end(self, at: int) -> bool:
        return not any(parameter.required for parameter in self._parameters[at:])

    def _key_from(self, at: int) -> str:
        """The rule for an argument from its name on, and all that follow it."""
        if at not in self._from:
            options = []
            for index in range(at, len(self._parameters)):
                options.append(self._argument(index))
                if self._parameters[index].required:
                    break
            self._from[at] = self._lark.alternatives(options)
        return self._from[at]

    def _argument(self, index: int) -> str:
        parameter = self._parameters[index]
        after_key = self._shape.after_key.replace("{type}", parameter.type_name)
        head = f"{self._lark.literal(parameter.name)} {self._lark.literal(after_key)}"
        values = [self._value(form, index + 1) for form in parameter.forms]
        return f"{head} ({' | '.join(values)})"

    def _value(self, form: Form, following: int) -> str:
        match form:
            case Plain():
                return self._plain(form, following)
            case Json(schema):
                return f"{self._lark.json(schema)} {self._closed(following)}"
            case Choice(values):
                options = self._lark.alternatives(
                    self._lark.literal(text) or '""' for text in values
                )
                return f"{options} {self._closed(following)}"

    def _closed(self, following: int) -> str:
        return f"{self._lark.literal(self._shape.after_value)} {self._goes_on(following)}"

    def _goes_on(self, following: int) -> str:
        options = []
        if following < len(self._parameters):
            begin = self._lark.literal(self._shape.separator + self._shape.before_key)
            options.append(f"{begin} {self._key_from(following)}")
        if self._may_end(following):
            options.append(self._lark.literal(self._shape.after_arguments) or '""')
        return self._lark.alternatives(options)

    def _plain(self, form: Plain, following: int) -> str:
        if mark := self._lark.first_mark(self._shape.after_value):
            # A token ends the text; spelled out it would be taken for that token.
            text = self._lark.terminal(form.constraints, without=mark)
            return f"{text}{'?' * form.may_be_empty} {self._closed(following)}"
        text = self._lark.terminal(form.constraints)
        return f"({' | '.join(self._ended(text, following))})"

    def _ended(self, text: str, following: int) -> list[str]:
        """The text up to what ends it.

        A closing tag ends it only together with what must follow, so that a file which holds such
        a tag can be written.
        """
        lark, after = self._lark, self._shape.after_value
        end, begin = endings(self._shape)
        if not end:
            return [f"{lark.rule(text, f'[suffix={quoted(after)}]')} {self._goes_on(following)}"]
        options = []
        if following < len(self._parameters):
            value = lark.rule(text, f"[suffix={quoted(begin)}]")
            options.append(f"{value} {self._key_from(following)}")
        if self._may_end(following):
            options.append(lark.rule(text, f"[suffix={quoted(end)}]"))
        return options


def endings(shape: TaggedShape) -> tuple[str, str]:
    """What ends a plain value behind which nothing, or another argument, comes.

    Two empty texts when they cannot be told apart at their first difference.
    """
    end = shape.after_value + shape.after_arguments
    begin = shape.after_value + shape.separator + shape.before_key
    if end.startswith(begin) or begin.startswith(end):
        return "", ""
    return end, begin
