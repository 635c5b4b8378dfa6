"""Malformed and tricky outputs of every family keep their values, their text and their quotes."""

from collections import defaultdict
from typing import Final

import pytest

from tests.models.families import CALLS
from tests.unit.mlx.decode.tricky_outputs import Outcome, Output, outcome, outputs

_BY_FAMILY: Final[dict[str, list[Output]]] = defaultdict(list)
for _output in outputs():
    _BY_FAMILY[_output.family].append(_output)


def test_there_are_many_of_every_family() -> None:
    """The table has hundreds of outputs, and no family is left out."""
    assert set(_BY_FAMILY) == set(CALLS)
    assert min(map(len, _BY_FAMILY.values())) >= 20
    assert sum(map(len, _BY_FAMILY.values())) >= 800


@pytest.mark.parametrize("family", CALLS)
def test_outputs_are_read_as_they_are_meant(family: str) -> None:
    """No value is changed, no text lost and no quoted call made; the rest is told to the model."""
    wrong = [
        (output.kind, found.value, output.text)
        for output in _BY_FAMILY[family]
        if (found := outcome(output, 1)) is not Outcome.RIGHT
        and not (found is Outcome.REPORTED and output.may_be_reported)
    ]
    assert wrong == []
