"""Constrained decoding: which tokens may come next, and reading a constrained call as it arrives.

A grammar (llguidance) allows only tokens that keep the answer a valid call of an offered tool, or a
document of the output schema. `compiler` makes the grammar of a request, `masks` applies it to each
step's probabilities, and `reader` streams the arguments of a constrained call.
"""

from anyclaude.mlx.decode.constraint.compiler import (
    AnswerGrammar,
    ConstraintCompiler,
    can_constrain_calls,
)
from anyclaude.mlx.decode.constraint.masks import Constraint
from anyclaude.mlx.decode.constraint.reader import (
    ArgumentsPiece,
    CallBegin,
    CallEnd,
    CallEvent,
    ConstrainedCallReader,
    ReadingError,
)

__all__ = [
    "AnswerGrammar",
    "ArgumentsPiece",
    "CallBegin",
    "CallEnd",
    "CallEvent",
    "ConstrainedCallReader",
    "Constraint",
    "ConstraintCompiler",
    "ReadingError",
    "can_constrain_calls",
]
