"""Many tools in one request: all constrained, compiled once, and none at the expense of others."""

import time
from typing import Any

import pytest

from anyclaude.messages.requests import Tool, ToolChoice
from anyclaude.mlx.decode.constraint import AnswerGrammar, ConstraintCompiler
from anyclaude.runtime.settings import GrammarSettings
from tests.models.claude_tools import tools
from tests.models.families import tokenizer
from tests.models.odd_schemas import INTEGER, obj
from tests.models.written_calls import reading, written_call

BASE = tools(bounded=False)
READ = {"limit": 3, "file_path": "a"}


def many(count: int) -> list[Tool]:
    """Tools with the schemas of Claude Code's tools, and names of their own."""
    picked = [BASE[number % len(BASE)] for number in range(count)]
    return [
        Tool(name=f"{tool.name}_{number}", input_schema=tool.input_schema)
        for number, tool in enumerate(picked)
    ]


def compiled(compiler: ConstraintCompiler, offered: list[Tool]) -> AnswerGrammar:
    made = compiler.compile(offered, ToolChoice(), None, in_thinking=False, may_think=False)
    assert made is not None
    return made


def call(family: str, made: AnswerGrammar, name: str, arguments: dict[str, Any]) -> Any:
    wrapper = tokenizer(family)
    found = reading(made, wrapper, written_call(wrapper, name, arguments))
    return found.refused or found.calls


@pytest.mark.parametrize("family", ["json_tools", "qwen3_coder", "gemma4"])
def test_a_thousand_tools_are_compiled_once(family: str) -> None:
    """Every tool is constrained to its schema, and the next request finds all of them compiled."""
    compiler, offered = ConstraintCompiler(tokenizer(family)), many(1000)
    began = time.process_time()
    made = compiled(compiler, offered)
    first = time.process_time() - began
    began = time.process_time()
    compiled(compiler, offered)
    assert time.process_time() - began < first / 10
    assert compiler.problems == {}
    assert call(family, made, "Read_976", READ) == [("Read_976", READ)]
    wrong = {**READ, "limit": [1]}
    assert isinstance(call(family, compiled(compiler, offered), "Read_976", wrong), str)


@pytest.mark.parametrize("family", ["json_tools", "qwen3_coder", "gemma4"])
def test_tools_that_are_too_large_together_stay_callable(family: str) -> None:
    """If all schemas together are too large, calls keep their form, and the reason is reported."""
    compiler = ConstraintCompiler(tokenizer(family), GrammarSettings(compile_steps=20_000))
    offered = [
        Tool(name=f"T{tool}", input_schema=obj(v={"enum": [f"{tool} {n}" for n in range(300)]}))
        for tool in range(40)
    ]
    made, other = compiled(compiler, offered), {"v": "another value"}
    assert call(family, made, "T7", other) == [("T7", other)]
    assert {len(found) for found in compiler.problems.values()} == {1}
    assert len(compiler.problems) == len(offered)
    # A request with fewer tools is constrained again.
    alone = compiled(compiler, offered[:1])
    assert isinstance(call(family, alone, "T0", other), str)


def test_a_problem_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The same tool in the next requests is not reported again; another schema of it is."""
    compiler = ConstraintCompiler(tokenizer("json_tools"))
    for schema in (obj(v={"type": "any"}), obj(v={"type": "any"}), obj(v={"not": INTEGER})):
        for others in (many(1), many(2)):
            compiled(compiler, [Tool(name="T", input_schema=schema), *others])
    assert capsys.readouterr().out.count("schema_not_expressible") == 2
