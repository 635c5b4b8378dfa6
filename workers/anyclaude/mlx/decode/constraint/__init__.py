"""Answers held to a grammar: which tokens may come, and reading what was held as it comes."""

from anyclaude.mlx.decode.constraint.compiler import ConstraintCompiler, Held, holds_calls
from anyclaude.mlx.decode.constraint.masks import Constraint
from anyclaude.mlx.decode.constraint.reader import Begin, CallReading, End, Part, Piece

__all__ = [
    "Begin",
    "CallReading",
    "Constraint",
    "ConstraintCompiler",
    "End",
    "Held",
    "Part",
    "Piece",
    "holds_calls",
]
