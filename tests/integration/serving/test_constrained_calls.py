"""Constrained calls of a model that writes at random; `make calls` runs hundreds of them."""

import pytest

from benchmarks.constrained_calls import CUT_AT_TOKENS, ENOUGH_TOKENS, valid_call, was_cut
from tests.models.claude_tools import tools
from tests.models.constrained_answers import Generator
from tests.models.families import CONSTRAINED


@pytest.mark.parametrize("family", CONSTRAINED)
def test_a_call_is_valid_or_cut(family: str) -> None:
    """A call with a bounded schema is valid; a call that is cut off is reported and not ended."""
    generator = Generator(family)
    offered = {tool.name for tool in tools()}
    for seed, limit in enumerate(CUT_AT_TOKENS):
        assert valid_call(generator.answer(tools(), seed, max_tokens=ENOUGH_TOKENS)) in offered
        was_cut(generator.answer(tools(bounded=False), seed, max_tokens=limit))
