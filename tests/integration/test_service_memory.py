"""What the whole service says of its memory."""

import pytest

from tests.integration.service import Service


@pytest.mark.parametrize(("limit", "is_told"), [("1000000", True), ("0", False)])
def test_a_limit_below_one_prompt_is_told(limit: str, is_told: bool) -> None:
    """`status` names the limit where Claude Code's prompt does not fit, and only there."""
    with Service(ANYCLAUDE__CACHE__MEMORY_LIMIT_BYTES=limit) as service:
        status = service.ready().control("status", "--json")

    assert status.code == 0
    told = [problem for problem in status.json["problems"] if "one Claude Code prompt" in problem]
    assert bool(told) is is_told
    assert status.json["memory"]["prompt_bytes"] > 1_000_000
    assert status.json["memory"]["available_bytes"] > 0
