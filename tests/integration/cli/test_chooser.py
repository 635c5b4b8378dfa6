"""`anyclaude` on a real terminal: the chooser asks, remembers, and stays silent in scripts."""

import json
import stat
import sys
from collections.abc import Iterator

import grpc
import pytest

from anyclaude.control.v1 import control_pb2
from anyclaude.worker.v1 import worker_pb2
from tests.integration.cli.conftest import Commands
from tests.integration.cli.scripted_control import Failure, ScriptedControl
from tests.terminal_process import TerminalProcess

_FAKE_CLAUDE = """
import json, sys
settings = json.load(open(sys.argv[sys.argv.index("--settings") + 1]))
print("CLAUDE", settings["env"].get("ANTHROPIC_CUSTOM_HEADERS", "no header"), sys.argv[3:])
"""
_PROMPT = "q to leave]: "


@pytest.fixture(autouse=True)
def _service(commands: Commands, control: ScriptedControl) -> None:
    commands.put_program("claude", _FAKE_CLAUDE)
    control.answers["GetMode"] = _modes()
    _configure(control, show=True)


def _modes(needs: control_pb2.Needs | None = None) -> control_pb2.GetModeResponse:
    near = worker_pb2.ModelInfo(id="near", context_window_tokens=32_768, has_tools=True)
    far = worker_pb2.ModelInfo(id="far", context_window_tokens=65_536, has_tools=True)
    return control_pb2.GetModeResponse(
        mode="mlx-lm",
        modes=[
            control_pb2.Mode(name="mlx-lm", ready=True, keeps_caches=True, model=near),
            control_pb2.Mode(name="lmstudio", ready=True, model=far),
            control_pb2.Mode(name="claude", reason="Nobody answers.", is_remote=True),
        ],
        recent_needs=needs,
    )


def _configure(control: ScriptedControl, *, show: bool) -> None:
    values = {"show": show, "analysis": "mlx-lm", "edit": "lmstudio", "cloud": "claude"}
    values["summary"] = False
    control.answers["GetConfig"] = control_pb2.GetConfigResponse(
        entries=[
            control_pb2.ConfigEntry(key=f"chooser.{key}", value_json=json.dumps(value))
            for key, value in values.items()
        ]
    )


def _launch(commands: Commands, *arguments: str) -> TerminalProcess:
    command = [sys.executable, "-m", "anyclaude.launcher", *arguments]
    return TerminalProcess(command, commands.environ, commands.home)


@pytest.fixture
def terminal(commands: Commands) -> Iterator[TerminalProcess]:
    with _launch(commands, "hello") as terminal:
        yield terminal


def test_a_number_chooses_the_mode_of_this_launch(
    commands: Commands, terminal: TerminalProcess
) -> None:
    """After a wrong key, a number starts claude in that mode and is remembered."""
    page = terminal.wait_for(_PROMPT)
    terminal.type("7\n")
    terminal.wait_for("a number from 1 to 3.")
    terminal.type("2\n")
    code, rest = terminal.wait_end()

    assert "1. Analysis" in page
    assert "nothing leaves this machine" in page
    assert "Enter for 1" in page
    assert (code, "CLAUDE x-anyclaude-mode: lmstudio ['hello']" in rest) == (0, True), rest
    file = commands.state / "chooser.json"
    assert json.loads(file.read_text()) == {"workflow": "edit"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_enter_chooses_the_remembered_workflow(commands: Commands) -> None:
    """Enter chooses the last workflow; the service's own mode adds no header."""
    edit = "x-anyclaude-mode: lmstudio"
    for keys, header in (("2\n", edit), ("\n", edit), ("1\n", "no header")):
        with _launch(commands) as terminal:
            terminal.wait_for(_PROMPT)
            terminal.type(keys)
            assert terminal.wait_end()[0] == 0
        assert f"CLAUDE {header}" in terminal.seen


def test_a_damaged_file_is_ignored(commands: Commands) -> None:
    """A damaged file counts as no earlier choice."""
    commands.state.mkdir(parents=True)
    (commands.state / "chooser.json").write_text("[")
    with _launch(commands) as terminal:
        terminal.wait_for("Enter for 1")


def test_a_mode_that_is_not_ready_cannot_be_chosen(terminal: TerminalProcess) -> None:
    """The chooser prints the reason and asks again."""
    terminal.wait_for(_PROMPT)
    terminal.type("3\n")
    terminal.wait_for("Cloud cannot be chosen now. Nobody answers.")
    terminal.wait_for(_PROMPT)


def test_a_fitting_mode_is_suggested(commands: Commands, control: ScriptedControl) -> None:
    """If recent prompts do not fit the chosen window, a mode with a larger one is suggested."""
    control.answers["GetMode"] = _modes(control_pb2.Needs(longest_prompt_tokens=40_000))
    with _launch(commands) as terminal:
        terminal.wait_for(_PROMPT)
        terminal.type("1\n")
        told = terminal.wait_for(_PROMPT)
        terminal.type("2\n")
        assert terminal.wait_end()[0] == 0

    assert "its window holds 32,768" in told
    assert "2, Edit (lmstudio), has it." in told
    assert "CLAUDE x-anyclaude-mode: lmstudio" in terminal.seen


def test_the_choice_can_be_confirmed(commands: Commands, control: ScriptedControl) -> None:
    """The advice is given once, and Enter then keeps the choice."""
    control.answers["GetMode"] = _modes(control_pb2.Needs(longest_prompt_tokens=40_000))
    with _launch(commands) as terminal:
        for keys in ("1\n", "\n"):
            terminal.wait_for(_PROMPT)
            terminal.type(keys)
        assert terminal.wait_end()[0] == 0
    assert "CLAUDE no header" in terminal.seen


@pytest.mark.parametrize("keys", ["q\n", "\x04", ""], ids=["q", "end", "interrupt"])
def test_leaving_starts_nothing(terminal: TerminalProcess, keys: str) -> None:
    """q, end of input and Ctrl-C exit with 130 and do not start claude."""
    terminal.wait_for(_PROMPT)
    if keys:
        terminal.type(keys)
    else:
        terminal.interrupt()
    code, rest = terminal.wait_end()
    assert code == 130
    assert "CLAUDE" not in rest


@pytest.mark.parametrize("how", ["print", "mode", "flag", "setting"])
def test_the_question_can_be_avoided(
    commands: Commands, control: ScriptedControl, how: str
) -> None:
    """A print run, a given mode, the flag and the setting start claude without a question."""
    arguments = {"print": ["-p", "hi"], "flag": ["--no-chooser", "hi"]}.get(how, ["hi"])
    if how == "mode":
        commands.environ["ANYCLAUDE_MODE"] = "mlx-lm"
    _configure(control, show=how != "setting")

    with _launch(commands, *arguments) as terminal:
        code, seen = terminal.wait_end()

    assert (code, "Choose" in seen) == (0, False), seen
    assert "--no-chooser" not in seen


def test_unknown_caches_do_not_prevent_the_menu(
    commands: Commands, control: ScriptedControl
) -> None:
    """While the worker is not running, the menu leaves the caches out."""
    control.answers["ListCaches"] = Failure(grpc.StatusCode.UNAVAILABLE, "away", "WORKER_DOWN")
    with _launch(commands) as terminal:
        assert " kept" not in terminal.wait_for(_PROMPT)


def test_without_a_choice_nothing_is_asked(commands: Commands, control: ScriptedControl) -> None:
    """If only the service's own mode can be chosen, claude starts without a question."""
    modes = _modes()
    modes.modes[1].ready = False
    control.answers["GetMode"] = modes
    with _launch(commands) as terminal:
        code, seen = terminal.wait_end()
    assert (code, "Choose" in seen) == (0, False), seen
