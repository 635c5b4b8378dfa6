"""The real Claude Code with another server behind the relay: a real mlx_lm.server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyclaude.mlx.demo import MODEL_PATH
from tests.e2e.claude_code import ClaudeCode
from tests.e2e.namespace import Namespace
from tests.integration.mlx_server import MlxServer
from tests.integration.service import Service


@pytest.fixture
def relaying(namespace: Namespace) -> Iterator[Service]:
    """A service in mode lmstudio, whose server is one of the OpenAI dialect."""
    with MlxServer(MODEL_PATH, within=namespace.command) as server:
        mode = {
            "ANYCLAUDE_MODE": "lmstudio",
            "LMSTUDIO_URL": server.base_url,
            # It lists what the hub's cache holds, not what it has loaded.
            "LMSTUDIO_MODEL": "default_model",
        }
        with Service(within=namespace.command, **mode) as service:
            yield service.ready()
            assert service.stop() == 0, service.output


def test_a_tool_loop(
    claude_binary: Path, relaying: Service, namespace: Namespace, project: Path, tmp_path: Path
) -> None:
    """The server's model calls a tool, the client runs it, and the result leads to an answer."""
    home = tmp_path / "home"
    home.mkdir()
    claude = ClaudeCode(claude_binary, namespace, relaying.base_url, home)
    first = claude.ask("Please say hello with Bash.", project, allowed_tools=["Bash"])
    assert first.succeeded, first
    assert [use.name for use in first.tool_uses] == ["Bash"]
    assert [result.is_error for result in first.tool_results] == [False]
    assert first.tool_results[0].text == "hello from anyclaude"
    assert first.texts[-1].startswith("The tool call came back")

    second = claude.ask("And what now?", project, resume=True, allowed_tools=["Bash"])
    assert second.succeeded, second
    assert second.session_id == first.session_id

    requests = json.loads(relaying.control("requests", "--json").stdout)
    answered = [one for one in requests["requests"] if one["route"] == "/v1/messages"]
    assert len(answered) >= 3
    assert {(one["mode"], one["status"]) for one in answered} == {("lmstudio", 200)}
