"""Calls that a grammar constrains stay what they are where drafts are verified in the grammar."""

import jsonschema
import pytest

from anyclaude.mlx.engine.drafts import PassCosts
from anyclaude.runtime.settings import MlxSettings
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.models.answers import read_blocks
from tests.models.claude_tools import tools
from tests.models.constrained_answers import ConstrainedAnswer, Generator
from tests.models.families import CONSTRAINED

SEEDS = 2


class Free(PassCosts):
    """A device on which a pass costs the same for any number of tokens, so that all are tried."""

    def of(self, tokens: int) -> float:
        return 1.0


def _called(answer: ConstrainedAnswer) -> list[tuple[str, str, str]]:
    return [(block.kind, block.name, block.text) for block in read_blocks(answer.blocks)]


@pytest.mark.parametrize(
    ("family", "thinking_tokens"), [*((family, None) for family in CONSTRAINED), ("json_tools", 9)]
)
def test_drafts_change_no_call(family: str, thinking_tokens: int | None) -> None:
    """With the same seed, the same valid call is written in fewer passes."""
    thinking = thinking_tokens is not None
    off = MlxSettings(draft_tokens=0)
    plain = Generator(family, thinking=thinking, settings=off)
    # Matches of one token, since a model with random weights hardly repeats itself.
    eager = MlxSettings(draft_match_tokens=1)
    drafted = Generator(family, thinking=thinking, settings=eager, pass_costs=Free())
    offered, saved = tools(), 0
    schemas = {tool.name: tool.input_schema for tool in offered}
    for seed in range(SEEDS):
        one, other = (
            side.answer(offered, seed, max_tokens=2000, thinking_tokens=thinking_tokens)
            for side in (plain, drafted)
        )
        assert _called(one) == _called(other)
        assert other.stop_reason == pb.STOP_REASON_TOOL_USE
        call = list(read_blocks(other.blocks))[-1]
        jsonschema.validate(call.input, schemas[call.name])
        saved += _passes(one) - _passes(other)
        assert other.events[-1].finished.usage == one.events[-1].finished.usage
    assert saved > 0


def _passes(answer: ConstrainedAnswer) -> int:
    return int(answer.events[-1].finished.decoded.passes)
