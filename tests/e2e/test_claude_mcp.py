"""The real Claude Code with an MCP server of 80 tools, behind ToolSearch and without it."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e import mcp_server
from tests.e2e.claude_code import ClaudeCode
from tests.e2e.scripted import Script, ScriptedService, calls, text

_TOOLS: Final = 80
_NAME: Final = "mcp__many__tool_42"


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """The options that give the client its one MCP server."""
    server = {"command": sys.executable, "args": [mcp_server.__file__, str(_TOOLS)]}
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"many": server}}))
    return ["--mcp-config", str(file), "--strict-mcp-config"]


def _offered(request: Any) -> dict[str, dict[str, Any]]:
    return {tool["name"]: tool for tool in request.body["tools"]}


def _with(claude: ClaudeCode, searches: str) -> ClaudeCode:
    return replace(claude, environment={**claude.environment, "ENABLE_TOOL_SEARCH": searches})


def test_a_tool_that_was_searched_is_called(
    scripted_claude: ClaudeCode, scripted: ScriptedService, options: list[str], project: Path
) -> None:
    """ToolSearch loads a deferred MCP tool, whose reference comes back, and the tool then runs."""
    script = scripted.play(
        Script(
            calls(("ToolSearch", {"query": f"select:{_NAME}", "max_results": 1})),
            calls((_NAME, {"word": "largo"})),
            text("It said largo."),
        )
    )
    ended = _with(scripted_claude, "true").ask(
        "Use tool 42.", project, allowed_tools=[_NAME], options=options
    )
    assert ended.succeeded, ended
    first, second, third = script.main
    assert "ToolSearch" in _offered(first)
    assert not [name for name in _offered(first) if name.startswith("mcp__many__")]
    (found,) = second.results
    assert {"type": "tool_reference", "tool_name": _NAME} in found["content"]
    assert _offered(second)[_NAME]["defer_loading"] is True
    (result,) = third.results
    assert "tool_42 got largo" in json.dumps(result["content"])
    assert ended.result == "It said largo."


def test_all_tools_are_listed_without_the_search(
    scripted_claude: ClaudeCode, scripted: ScriptedService, options: list[str], project: Path
) -> None:
    """With the search off, all 80 tools are in the request, and one of them runs."""
    script = scripted.play(Script(calls((_NAME, {"word": "presto"})), text("It said presto.")))
    ended = _with(scripted_claude, "false").ask(
        "Use tool 42.", project, allowed_tools=[_NAME], options=options
    )
    assert ended.succeeded, ended
    offered = _offered(script.main[0])
    assert "ToolSearch" not in offered
    assert sum(name.startswith("mcp__many__") for name in offered) == _TOOLS
    (result,) = script.main[1].results
    assert "tool_42 got presto" in json.dumps(result["content"])
