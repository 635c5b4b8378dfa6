"""What a model may do, and how the real Claude Code reacts; the model is scripted.

Each scenario ends as the client expects, and what the client sent is checked as well.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from anyclaude.launcher.main import RESUME_HINT
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say
from tests.e2e.claude_code import ClaudeCode
from tests.e2e.scripted import Script, ScriptedService, calls, refusal, text


@pytest.fixture
def claude(scripted_claude: ClaudeCode) -> ClaudeCode:
    """The client, whose model is scripted."""
    return scripted_claude


def test_three_tools(claude: ClaudeCode, scripted: ScriptedService, project: Path) -> None:
    """A loop over three tools runs each, and every result comes back under its id."""
    note = project / "note.txt"
    script = scripted.play(
        Script(
            calls(("Write", {"file_path": str(note), "content": "größe 🦊\n"}), first="I write."),
            calls(("Bash", {"command": "wc -c note.txt", "description": "Count bytes"})),
            calls(("Read", {"file_path": str(note)})),
            text("All ", "done."),
        )
    )
    ended = claude.ask("Write a note.", project, allowed_tools=["Write", "Bash", "Read"])
    assert ended.succeeded, ended
    assert note.read_text() == "größe 🦊\n"
    assert [use.name for use in ended.tool_uses] == ["Write", "Bash", "Read"]
    assert [result.is_error for result in ended.tool_results] == [False] * 3
    assert ended.tool_results[1].text.split()[0] == str(len("größe 🦊\n".encode()))
    assert "größe 🦊" in ended.tool_results[2].text
    assert ended.result == "All done."
    called = [use.id for use in ended.tool_uses]
    returned = [result["tool_use_id"] for ask in script.main[1:] for result in ask.results]
    assert returned == called


def test_parallel_calls(claude: ClaudeCode, scripted: ScriptedService, project: Path) -> None:
    """Several calls in one answer all run, and their results come back in one turn."""
    (project / "a.txt").write_text("from a file")
    script = scripted.play(
        Script(
            calls(
                ("Bash", {"command": "echo one", "description": "Say one"}),
                ("Read", {"file_path": str(project / "a.txt")}),
                ("Bash", {"command": "echo three", "description": "Say three"}),
            ),
            text("Three results."),
        )
    )
    ended = claude.ask("Look at everything.", project, allowed_tools=["Bash", "Read"])
    assert ended.succeeded, ended
    assert len(ended.tool_uses) == 3
    by_id = {result.tool_use_id: result.text for result in ended.tool_results}
    texts = [by_id[use.id] for use in ended.tool_uses]
    assert (texts[0], texts[2]) == ("one", "three")
    assert "from a file" in texts[1]
    assert len(script.main) == 2
    assert {result["tool_use_id"] for result in script.main[1].results} == set(by_id)


def test_error_result(claude: ClaudeCode, scripted: ScriptedService, project: Path) -> None:
    """A failed tool's result is marked as an error, and the conversation continues."""
    script = scripted.play(
        Script(
            calls(("Bash", {"command": "echo oops >&2; exit 3", "description": "Fail"})),
            calls(("NoSuchTool", {"x": 1})),
            calls(("Read", {"wrong": True})),
            text("I give up."),
        )
    )
    ended = claude.ask("Try.", project, allowed_tools=["Bash", "Read"])
    assert ended.succeeded, ended
    assert ended.result == "I give up."
    assert [result.is_error for result in ended.tool_results] == [True] * 3
    assert "oops" in ended.tool_results[0].text
    assert [result.get("is_error") for ask in script.main[1:] for result in ask.results] == [
        True
    ] * 3


def test_subagent(claude: ClaudeCode, scripted: ScriptedService, project: Path) -> None:
    """A subagent has its own conversation and agent id, and its report reaches the main one."""
    task = {
        "description": "Look around",
        "prompt": "Say what is here.",
        "subagent_type": "general-purpose",
        "run_in_background": False,
    }
    script = scripted.play(
        Script(
            calls(("Agent", task)),
            text("It found a fox."),
            text("It found a fox."),
            agent=[
                calls(("Bash", {"command": "echo inside", "description": "Look"})),
                text("Report: one fox."),
            ],
        )
    )
    ended = claude.ask("Use a subagent.", project, allowed_tools=["Bash", "Agent"])
    assert ended.succeeded, ended
    assert ended.result == "It found a fox."
    agents = [request for request in script.requests if request.identity.agent_id]
    assert len(agents) == 2
    assert len({request.identity.agent_id for request in agents}) == 1
    sessions = {request.identity.session_id for request in script.requests}
    assert sessions == {ended.session_id}
    assert "inside" in str(agents[1].results[0]["content"])
    assert "Report: one fox." in str(script.main[-1].messages)


@pytest.mark.parametrize("how", ["continue", "resume"])
def test_resume(claude: ClaudeCode, scripted: ScriptedService, project: Path, how: str) -> None:
    """A resumed conversation sends its whole history, calls and results included."""
    script = scripted.play(
        Script(
            calls(("Bash", {"command": "echo kept", "description": "Say kept"})),
            text("First answer."),
            text("Second answer."),
        )
    )
    first = claude.ask("Remember.", project, allowed_tools=["Bash"])
    assert first.succeeded, first
    named = ["--resume", str(first.session_id)] if how == "resume" else []
    second = claude.ask("And now?", project, resume=how == "continue", options=named)
    assert second.succeeded, second
    assert second.result == "Second answer."
    assert second.session_id == first.session_id
    history = str(script.main[-1].messages)
    assert all(said in history for said in ("Remember.", "kept", "First answer.", "And now?"))
    assert first.tool_uses[0].id in history


def _long_answer() -> Iterator[worker.GenerateResponse]:
    """An answer after which the window of 65,536 tokens is nearly full."""
    usage = worker.Usage(input_tokens=60_000, output_tokens=5)
    yield say.started(usage)
    yield from (say.text_start(), say.delta(text="Long ago."), say.stop())
    finished = worker.Finished(stop_reason=worker.STOP_REASON_END_TURN, usage=usage)
    yield worker.GenerateResponse(finished=finished)


@pytest.mark.parametrize("command", ["", "/compact"])
def test_compaction_before_the_window_is_full(
    claude: ClaudeCode, scripted: ScriptedService, project: Path, command: str
) -> None:
    """By itself when little is left, or by its command, the client summarises and continues."""
    (new_variable,) = RESUME_HINT
    if new_variable.encode() not in claude.binary.read_bytes():
        pytest.skip("without a terminal, this release compacts only after an overflow")
    script = scripted.play(
        Script(
            text("Long ago.") if command else _long_answer,
            text("After the summary."),
            compaction=text("<summary>The user asked for a story.</summary>"),
        )
    )
    assert claude.ask("Tell a story.", project).succeeded
    if command:
        done = claude.run(["-p", command, "--continue"], project)
        assert done.returncode == 0, done
    ended = claude.ask("Go on.", project, resume=True)
    assert ended.succeeded, ended
    assert ended.result == "After the summary."
    assert any(request.is_compaction for request in script.requests)
    last = str(script.main[-1].messages)
    assert "The user asked for a story." in last
    assert "Long ago." not in last


def test_overflow_leads_to_compaction(
    claude: ClaudeCode, scripted: ScriptedService, project: Path
) -> None:
    """A prompt that is too long makes the client compact the conversation and continue."""
    script = scripted.play(
        Script(
            calls(("Bash", {"command": "seq 1 400", "description": "Count"})),
            text("Counted."),
            refusal(400, "prompt is too long: 70000 tokens > 65536 maximum"),
            text("After the summary."),
            compaction=text("<summary>The user counted.</summary>"),
        )
    )
    first = claude.ask("Count.", project, allowed_tools=["Bash"])
    assert first.succeeded, first
    second = claude.ask("Go on.", project, resume=True)
    assert second.succeeded, second
    assert second.result == "After the summary."
    assert any(request.is_compaction for request in script.requests)
    last = script.main[-1].messages
    assert "The user counted." in str(last)
    assert len(str(last)) < len(str(script.main[-2].messages))
