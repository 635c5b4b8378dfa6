"""The interactive Claude Code: behaviour that needs a terminal."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from anyclaude.cli.bundle import Endpoint, environment_for
from anyclaude.launcher.main import RESUME_HINT
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say
from tests.e2e.claude_code import ClaudeCode
from tests.e2e.scripted import Script, ScriptedService, text
from tests.e2e.service import Service
from tests.e2e.terminal import WAIT_SECONDS, Terminal, TerminalUnavailable, open_terminal
from tests.integration.frontend_process import MODEL
from tests.requirements import unavailable
from tools.demo_model.words import ANSWERS, Cue

DEMO_TITLE = json.loads(ANSWERS[Cue.TITLE])["title"]
# The variables of a plain `claude`, whose server stands for Anthropic's here.
_NOT_MODELS = frozenset(
    {
        *("HOME", "PATH", "LANG", "IS_SANDBOX", "CLAUDE_CODE_TMPDIR"),
        *("ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"),
    }
)
PROMPT = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"


@pytest.fixture
def terminal(
    scripted_claude: ClaudeCode, scripted: ScriptedService, project: Path
) -> Iterator[Terminal]:
    """The client before its first prompt; its start uses nothing of a test's script."""
    scripted.play(Script())
    yield from _terminal(scripted_claude, project)


@pytest.fixture
def launched_terminal(
    scripted_claude: ClaudeCode, scripted: ScriptedService, project: Path
) -> Iterator[Terminal]:
    """The client with all variables that the launcher sets."""
    model = MODEL.id, MODEL.context_window_tokens
    launch = Endpoint(scripted.base_url, "mlx-lm", "", *model, auth_token="")
    scripted.play(Script())
    with _open(replace(scripted_claude, environment=environment_for(launch, {})), project) as made:
        yield made


@pytest.fixture
def service_terminal(claude: ClaudeCode, project: Path) -> Iterator[Terminal]:
    """The same, with a whole service on the demo model."""
    yield from _terminal(claude, project)


def _terminal(claude: ClaudeCode, project: Path) -> Iterator[Terminal]:
    # With it set there is no title call.
    environment = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": ""}
    with _open(replace(claude, environment=environment), project) as terminal:
        yield terminal


@contextmanager
def _open(claude: ClaudeCode, project: Path) -> Iterator[Terminal]:
    """The client at its prompt."""
    try:
        with open_terminal(claude, project) as terminal:
            terminal.wait_for(PROMPT)
            yield terminal
    except TerminalUnavailable as missing:
        unavailable(str(missing))


def test_title_call(terminal: Terminal, scripted: ScriptedService) -> None:
    """A new conversation requests its title by a schema and shows the answer."""
    script = scripted.play(Script(text("Quick ", "as a fox."), title="Foxes and titles"))
    terminal.type("How quick is a fox?")
    terminal.press("Enter")
    terminal.wait_for("Quick as a fox.")
    terminal.wait_until(lambda: any(ask.wants_json for ask in script.requests), "title call")
    (asked, *_) = [request for request in script.requests if request.wants_json]
    wanted = asked.body["output_config"]["format"]
    assert wanted["type"] == "json_schema"
    assert wanted["schema"]["required"] == ["title"]
    assert not asked.body.get("tools")
    assert asked.identity.request_class == worker.REQUEST_CLASS_UTILITY
    terminal.wait_until(lambda: "Foxes and titles" in terminal.title, "title of the terminal")


def test_the_worker_names_the_conversation(service_terminal: Terminal, service: Service) -> None:
    """The MLX worker constrains the title to its schema, and the client shows it."""
    service_terminal.type("How quick is a fox?")
    service_terminal.press("Enter")
    service_terminal.wait_until(lambda: DEMO_TITLE in service_terminal.title, "title")
    # The turn itself, which runs at the same time, may not be answered yet.
    requests = service.control("requests", "--json").json["requests"]
    (asked,) = (r for r in requests if r["identity"]["request_class"] == "utility")
    assert (asked["outcome"], asked["stop_reason"]) == ("completed", "end_turn")
    assert asked["usage"]["cache_creation_tokens"] == 0


def test_the_hint_at_the_end(
    scripted_claude: ClaudeCode, scripted: ScriptedService, project: Path
) -> None:
    """With the launcher's variable the client names the command that resumes on this service.

    Releases that do not know the variable name `claude`.
    """
    (variable,) = RESUME_HINT
    is_known = variable.encode() in scripted_claude.binary.read_bytes()
    command = "anyclaude" if is_known else "claude"
    scripted.play(Script(text("Quick as a fox.")))
    shell = scripted_claude.home / "shell"
    # The terminal closes with its command, so the shell waits until the hint has been read.
    shell.write_text(f"#!/bin/sh\n{scripted_claude.binary}\nread _\n")
    shell.chmod(0o755)
    launched = replace(scripted_claude, binary=shell, environment=RESUME_HINT)
    with _open(launched, project) as terminal:
        terminal.type("How quick is a fox?")
        terminal.press("Enter")
        terminal.wait_for("Quick as a fox.")
        terminal.type("/exit")
        terminal.press("Enter")
        terminal.wait_for("Resume this session with:")
        terminal.wait_for(f"{command} --resume ")
        (session,) = re.findall(r"--resume ([0-9a-f-]{36})", terminal.screen)

    script = scripted.play(Script(text("Quicker than a hound.")))
    resumed = scripted_claude.ask("And a hound?", project, options=["--resume", session])
    assert resumed.succeeded, resumed
    assert "Quick as a fox." in str(script.main[-1].messages)


def test_escape(terminal: Terminal, scripted: ScriptedService) -> None:
    """Esc during an answer cancels it at the worker, and the conversation continues."""
    release = threading.Event()

    def endless() -> Iterator[worker.GenerateResponse]:
        yield say.started()
        yield say.text_start()
        yield say.delta(text="Once upon a time ")
        while not release.wait(0.05):
            yield say.delta(text="and ")

    try:
        script = scripted.play(Script(endless, text("A new answer.")))
        terminal.type("Tell me a story.")
        terminal.press("Enter")
        terminal.wait_for("Once upon a time")
        scripted.worker.over.clear()
        terminal.press("Escape")
        assert scripted.worker.over.wait(WAIT_SECONDS), terminal.screen
        terminal.wait_for("nterrupted")
    finally:
        release.set()
    terminal.type("Something else.")
    terminal.press("Enter")
    terminal.wait_for("A new answer.")
    assert "Something else." in str(script.main[-1].messages)


def test_a_picked_model(
    launched_terminal: Terminal,
    scripted_claude: ClaudeCode,
    scripted: ScriptedService,
    project: Path,
) -> None:
    """Each row of /model is answered by the mode's model, and plain `claude` works afterwards.

    Claude Code saves the choice for all later starts, so no row may be saved by our model's name.
    """
    rows = _open_models(launched_terminal)
    assert len(rows) >= 4, launched_terminal.screen
    for row in rows:
        answer = f"This is row {row}."
        script = scripted.play(Script(text(answer)))
        launched_terminal.type(row)
        launched_terminal.wait_until(
            lambda: "Select model" not in launched_terminal.screen, "end of the list"
        )
        launched_terminal.type("Who are you?")
        launched_terminal.press("Enter")
        launched_terminal.wait_for(answer)
        assert {request.body["model"] for request in script.requests} == {MODEL.id}

        settings = json.loads((scripted_claude.home / ".claude" / "settings.json").read_text())
        assert settings.get("model") in {None, "fable", "opus", "sonnet", "haiku"}
        _open_models(launched_terminal)
    launched_terminal.press("Escape")

    script = scripted.play(Script(text("As before.")))
    plain = dict.fromkeys(scripted_claude.variables.keys() - _NOT_MODELS, "")
    ended = replace(scripted_claude, environment=plain).ask("Who are you?", project)
    assert ended.result == "As before.", ended
    assert all(request.body["model"].startswith("claude-") for request in script.requests)


def _open_models(terminal: Terminal) -> list[str]:
    """Opens the list of models; returns the numbers of its rows."""
    terminal.type("/model")
    terminal.press("Enter")
    terminal.wait_for("Select model")
    terminal.wait_for("Esc to cancel")
    return re.findall(r"^\W*(\d)\. ", terminal.screen.partition("Select model")[2], re.MULTILINE)
