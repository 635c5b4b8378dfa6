"""Calls of a model that writes at random: valid, or told as cut. `make calls` runs hundreds."""

import pytest

from benchmarks.constrained_calls import CUT_AT_TOKENS, ROOM_TOKENS, valid_call, was_cut
from tests.models.claude_tools import tools
from tests.models.constrained_answers import Generator
from tests.models.families import CONSTRAINED


@pytest.mark.parametrize("family", CONSTRAINED)
def test_a_call_is_valid_or_cut(family: str) -> None:
    """Bounded by its schema, a call is valid; cut, it is told as cut and never closed by force."""
    generator = Generator(family)
    offered = {tool.name for tool in tools()}
    for seed, room in enumerate(CUT_AT_TOKENS):
        assert valid_call(generator.answer(tools(), seed, max_tokens=ROOM_TOKENS)) in offered
        was_cut(generator.answer(tools(bounded=False), seed, max_tokens=room))
