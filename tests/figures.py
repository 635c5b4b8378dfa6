"""Figures that a test measured, for the end of the run."""

from collections.abc import Callable
from typing import Final

FIGURES: Final = "figures"
# pytest's own `record_property`.
RecordProperty = Callable[[str, object], None]
