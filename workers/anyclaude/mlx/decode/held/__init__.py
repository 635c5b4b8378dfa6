"""Answers held to a grammar: which tokens may come, and reading what was held as it comes."""

from anyclaude.mlx.decode.held.compiler import ConstraintCompiler, Held, holds_calls
from anyclaude.mlx.decode.held.constraint import Constraint
from anyclaude.mlx.decode.held.reader import Begin, CallReading, End, Part, Piece

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
