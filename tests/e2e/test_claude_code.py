"""Conversations of the real Claude Code with the service, checked by the client's report."""

import shlex
from pathlib import Path

import pytest

from anyclaude.runtime.conversations import Conversations
from tests.e2e.claude_code import ClaudeCode
from tests.e2e.service import Service

# A follow-up adds a call, its result or a line of text to a prompt of more than ten thousand
# tokens: about one token in a hundred.
FOLLOW_UP_REUSED = 0.95

# Tools, instructions and the client's own system message are shared; what is left is the user's
# first words and the frame of the turn, some twenty tokens of more than fifteen thousand.
NEW_CONVERSATION_COMPUTED = 0.02


@pytest.mark.slow(15)
def test_tool_loop_ends_and_the_conversation_continues(claude: ClaudeCode, project: Path) -> None:
    """A tool call runs, its result leads to an answer, and every later request reuses the last."""
    first = claude.ask("Please say hello with Bash.", project, allowed_tools=["Bash"])
    assert first.succeeded, first
    assert [use.name for use in first.tool_uses] == ["Bash"]
    assert [result.is_error for result in first.tool_results] == [False]
    program, *words = shlex.split(first.tool_uses[0].input["command"])
    assert program == "echo"
    assert first.tool_results[0].text == " ".join(words)
    assert first.texts
    assert len(first.usages) == 2
    assert first.usages[1].reused >= FOLLOW_UP_REUSED

    second = claude.ask("And what now?", project, resume=True, allowed_tools=["Bash"])
    assert second.succeeded, second
    assert second.session_id == first.session_id
    assert second.usages[0].prompt_tokens > first.usages[1].prompt_tokens
    assert second.usages[0].reused >= FOLLOW_UP_REUSED


@pytest.mark.slow(15)
def test_new_conversation_reuses_tools_and_instructions(claude: ClaudeCode, project: Path) -> None:
    """A second conversation in the folder computes only its own first words.

    `anyclaudectl requests` names both by what Claude Code wrote down of them.
    """
    first = claude.ask("What is two and two?", project)
    assert first.succeeded, first
    assert first.usages[0].prompt_tokens > 0

    second = claude.ask("Name a colour of the rainbow.", project)
    assert second.succeeded, second
    assert second.session_id != first.session_id
    assert second.usages[0].prompt_tokens > 10_000
    assert second.usages[0].computed <= NEW_CONVERSATION_COMPUTED

    names = Conversations({"HOME": str(claude.home)})
    assert names.title(first.session_id) == f"{project.name}: What is two and two?"
    assert names.title(second.session_id) == f"{project.name}: Name a colour of the rainbow."


def test_stopping_leaves_no_process_behind(service: Service) -> None:
    """After SIGTERM the daemon exits with 0, and every process that it started is gone."""
    assert len(service.namespace.processes()) > 1
    assert service.stop() == 0, service.log_tail()
    assert service.namespace.remaining_processes() == {}
