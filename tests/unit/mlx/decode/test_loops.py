"""Answers that repeat themselves are ended; files and tables that repeat are not."""

import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyclaude.mlx.decode import BlockStream
from anyclaude.mlx.decode.loops import LoopLimits, LoopWatch
from anyclaude.mlx.decode.repairs import Repair, RepairCounts
from tests.models.answers import TOOLS, Answer, read_blocks
from tests.models.families import encode, json_call, tokenizer

HERMES = tokenizer("json_tools", thinking=True)
STDLIB = Path(sysconfig.get_path("stdlib"))
# Files of the standard library in which many lines are alike.
REPETITIVE = ("encodings/iso8859_1.py", "opcode.py", "token.py")
TABLE = "| a | b |\n|---|---|\n" + "| 0 | 0 |\n" * 60
ROWS = json.dumps([{"id": 0, "name": None, "tags": []}] * 100, indent=1)


def watched(text: str, *, limits: LoopLimits | None = None) -> tuple[Answer, RepairCounts]:
    """The answer of a model that writes `text`, ended where the engine would end it."""
    repairs = RepairCounts()
    stream = BlockStream(HERMES, TOOLS, [], loops=limits or LoopLimits(), repairs=repairs)
    events = []
    for token in encode(HERMES, text):
        events += stream.push(token)
        if stream.loop is not None:
            break
    events += stream.finish(cut=stream.loop is not None and stream.is_in_call)
    return Answer(stream, list(read_blocks(events))), repairs


@pytest.mark.parametrize(
    "cycle",
    [
        "I will now check the file again.\n",
        "Wait, ",
        "\n",
        "The test fails. So I read the file. The file is right. So I run the test.\n\n",
        "é🙂 ",
    ],
)
@pytest.mark.parametrize("start", ["I look.\n", "<think>Hm.\n"])
def test_a_loop_ends_with_what_was_written(cycle: str, start: str) -> None:
    """Prose and thinking that repeat end long before `max_tokens`, and a sentence says why."""
    result, repairs = watched(start + cycle * 5_000)
    assert repairs[Repair.REPEATED_TEXT] == 1
    assert result.blocks[0].text.startswith(start.removeprefix("<think>").rstrip())
    reason = "[The answer was ended, since it repeated the same text again and again.]"
    assert result.blocks[-1].text.endswith(reason)
    assert sum(len(block.text) for block in result.blocks) < 20_000
    assert not result.stream.is_verbatim


def test_equal_calls_in_a_row_are_a_loop() -> None:
    """The call that repeats is made so often, and then the turn ends with these calls."""
    result, repairs = watched(json_call({"command": "ls"}) * 50)
    assert result.inputs == [{"command": "ls"}] * 4
    assert result.stream.has_tool_use
    assert repairs[Repair.REPEATED_CALL] == 1
    assert "the same call" in result.blocks[-1].text


def test_calls_that_differ_are_no_loop() -> None:
    """Many calls of one tool, and equal calls with others between, are all made."""
    calls = [json_call({"command": f"cat {n}"}) + json_call({"command": "ls"}) for n in range(30)]
    result, repairs = watched("".join(calls))
    assert len(result.inputs) == 60
    assert not repairs.total()


def test_a_loop_inside_a_call_ends_it_without_making_it() -> None:
    """Half a call is never made; text before it stays."""
    text = 'Look.<tool_call>{"name": "Bash", "arguments": {"command": "' + "ls -la; " * 6_000
    result, repairs = watched(text)
    assert result.brief() == [("text", "", "Look.")]
    assert repairs[Repair.REPEATED_TEXT] == 1


def texts() -> Iterator[tuple[str, str]]:
    for name in REPETITIVE:
        yield name, (STDLIB / name).read_text()
    yield "table", TABLE * 3
    yield "rows", ROWS
    yield "zeros", "0, " * 500
    yield "rules", ("-" * 80 + "\n") * 30
    yield "css", ".a { margin: 0; padding: 0; border: 0 }\n" * 40


@pytest.mark.parametrize(("name", "text"), [pytest.param(*pair, id=pair[0]) for pair in texts()])
def test_repetitive_files_are_no_loops(name: str, text: str) -> None:
    """A file in a call or in a code block is written whole, however alike its lines are."""
    result, repairs = watched(json_call({"command": text}))
    assert result.inputs == [{"command": text}], name
    block = f"Here:\n```\n{text}\n```\n"
    result, more = watched(block)
    assert result.text.strip() == block.strip()
    assert not repairs.total() + more.total()


def test_a_table_in_prose_is_no_loop() -> None:
    """Sixty equal rows of a table stay."""
    result, repairs = watched(TABLE)
    assert result.text.strip() == TABLE.strip()
    assert not repairs.total()


@pytest.mark.parametrize("end", ["prose", "code"])
def test_the_limits_are_those_of_the_settings(end: str) -> None:
    """So many tokens must repeat, in prose or in code."""
    limits = LoopLimits(200, 10_000, 2) if end == "prose" else LoopLimits(10_000, 200, 2)
    watch = LoopWatch(limits)
    seen = [watch.is_loop(n % 7, is_code=end == "code") for n in range(400)]
    assert any(seen)
    assert not any(seen[:199])


def test_a_cycle_that_came_too_rarely_is_no_loop() -> None:
    """A sequence must come ten times, however long it is."""
    watch = LoopWatch(LoopLimits(1_000, 1_000, 2))
    assert not any(watch.is_loop(n % 150, is_code=False) for n in range(3_000))
    assert any(watch.is_loop(n % 90, is_code=False) for n in range(3_000))
