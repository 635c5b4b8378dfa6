"""`anyclaude`: a fake `claude` reports how it was started."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from anyclaude.cli.claude_code import _PACKAGE_MANAGERS
from anyclaude.control.v1 import control_pb2
from anyclaude.worker.v1 import worker_pb2
from tests.integration.cli.conftest import Commands, degraded_status, ready_status
from tests.integration.cli.scripted_control import ScriptedControl

# Exit code 42 shows that the exit code is claude's own.
_FAKE_CLAUDE = """
import json, os, sys
file = sys.argv[sys.argv.index("--settings") + 1]
settings = json.load(open(file))
print(json.dumps(
    {"argv": sys.argv[1:], "env": dict(os.environ), "settings": settings, "pid": os.getpid()}
))
sys.exit(42)
"""


@pytest.fixture(autouse=True)
def _claude(commands: Commands) -> None:
    commands.put_program("claude", _FAKE_CLAUDE)


def _modes(*modes: control_pb2.Mode) -> control_pb2.GetModeResponse:
    return control_pb2.GetModeResponse(mode="mlx-lm", modes=modes)


def _launched(commands: Commands, *arguments: str) -> dict[str, Any]:
    done = commands.run("anyclaude.launcher", *arguments)
    assert done.returncode == 42, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_claude_gets_arguments_and_settings(commands: Commands, control: ScriptedControl) -> None:
    """Arguments pass unchanged behind a private settings file that holds the bundle."""
    seen = _launched(commands, "-p", "say hi", "--allowedTools", "Bash")

    flag, file, *rest = seen["argv"]
    assert flag == "--settings"
    assert rest == ["-p", "say hi", "--allowedTools", "Bash"]
    assert Path(file).parent == commands.state
    assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    env = seen["settings"]["env"]
    assert env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:49152"
    assert env["ANTHROPIC_MODEL"] == env["ANTHROPIC_DEFAULT_OPUS_MODEL"] == "anyclaude-demo"
    assert env["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "131072"
    assert env["CLAUDE_CODE_ATTRIBUTION_HEADER"] == "0"
    assert "ANTHROPIC_CUSTOM_HEADERS" not in env
    assert seen["settings"]["skipWebFetchPreflight"] is True


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_begins_with_our_own_options(commands: Commands, word: str) -> None:
    """Our help comes first, then that of claude, and neither needs a running service."""
    commands.put_program("claude", 'import sys; print("help of claude:", sys.argv[1:])')

    done = commands.run("anyclaude.launcher", word)

    ours, _, theirs = done.stdout.partition("help of claude:")
    assert done.returncode == 0
    assert "--no-chooser" in ours
    assert "ANYCLAUDE_MODE" in ours
    assert theirs.strip() == f"['{word}']"


def test_a_named_server_may_be_called_local(commands: Commands, control: ScriptedControl) -> None:
    """A mode that the configuration calls "local" is used for a launch, without a warning."""
    model = worker_pb2.ModelInfo(id="anyclaude-mine", context_window_tokens=65_536)
    control.answers["GetMode"] = _modes(control_pb2.Mode(name="local", ready=True, model=model))
    commands.environ["ANYCLAUDE_MODE"] = "local"

    env = _launched(commands)["settings"]["env"]

    assert env["ANTHROPIC_CUSTOM_HEADERS"] == "x-anyclaude-mode: local"
    assert env["ANTHROPIC_MODEL"] == "anyclaude-mine"


def test_contradicting_shell_variables_are_removed(
    commands: Commands, control: ScriptedControl
) -> None:
    """Variables that would redirect Claude Code are removed; all others stay."""
    commands.environ |= {
        "ANTHROPIC_BASE_URL": "https://api.anthropic.com",
        "ANTHROPIC_API_KEY": "sk-real",
        "ANTHROPIC_MODEL": "claude-opus",
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "EDITOR": "vi",
    }

    env = _launched(commands)["env"]

    assert not {name for name in env if name.startswith("ANTHROPIC_")}
    assert "CLAUDE_CODE_USE_BEDROCK" not in env
    assert env["EDITOR"] == "vi"


def test_resume_hint(commands: Commands, control: ScriptedControl) -> None:
    """Claude Code names our command for resuming, or the one that the user chose."""
    name = "CLAUDE_CODE_RESUME_HINT_COMMAND"
    assert _launched(commands)["env"][name] == "anyclaude"

    commands.environ[name] = "my-wrapper"
    assert _launched(commands)["env"][name] == "my-wrapper"


def test_advice_yields_to_the_shell(commands: Commands, control: ScriptedControl) -> None:
    """A tuning variable that the shell sets is not overridden by the settings file."""
    commands.environ["CLAUDE_CODE_MAX_TOOL_USE_CONCURRENCY"] = "7"

    seen = _launched(commands)

    assert "CLAUDE_CODE_MAX_TOOL_USE_CONCURRENCY" not in seen["settings"]["env"]
    assert seen["env"]["CLAUDE_CODE_MAX_TOOL_USE_CONCURRENCY"] == "7"


def test_hosts_that_settings_files_exempt_from_a_proxy_stay_exempt(
    commands: Commands, control: ScriptedControl
) -> None:
    """Our settings override those of the user, whose own NO_PROXY is therefore merged into ours."""
    file = Path(commands.environ["HOME"]) / ".claude" / "settings.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"env": {"NO_PROXY": "user.example"}}), encoding="utf-8")
    own = json.dumps({"env": {"no_proxy": "launch.example"}})

    env = _launched(commands, "--settings", own)["settings"]["env"]

    hosts = "127.0.0.1,localhost,::1,launch.example,user.example"
    assert env["NO_PROXY"] == env["no_proxy"] == hosts


def test_mode_of_one_launch(commands: Commands, control: ScriptedControl) -> None:
    """ANYCLAUDE_MODE becomes a header, and model and window are those of that mode."""
    model = worker_pb2.ModelInfo(id="anyclaude-far", context_window_tokens=65_536)
    control.answers["GetMode"] = _modes(control_pb2.Mode(name="lmstudio", ready=True, model=model))
    commands.environ["ANYCLAUDE_MODE"] = "lmstudio"
    commands.environ["ANTHROPIC_CUSTOM_HEADERS"] = "x-team: blue"

    env = _launched(commands)["settings"]["env"]

    assert env["ANTHROPIC_CUSTOM_HEADERS"] == "x-team: blue\nx-anyclaude-mode: lmstudio"
    assert env["ANTHROPIC_MODEL"] == "anyclaude-far"
    assert env["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "65536"


def test_mode_of_one_launch_that_is_not_ready(commands: Commands, control: ScriptedControl) -> None:
    """A launch in a mode that is not ready is refused with the reason; exit 5."""
    commands.environ["ANYCLAUDE_MODE"] = "lmstudio"
    control.answers["GetMode"] = _modes(
        control_pb2.Mode(name="lmstudio", reason="LM Studio does not run.")
    )

    done = commands.run("anyclaude.launcher")

    assert done.returncode == 5
    assert "LM Studio does not run." in done.stderr


def test_a_stop_first_mode_of_one_launch(commands: Commands, control: ScriptedControl) -> None:
    """The launch starts, with a note that nothing was stopped and how to do that."""
    commands.environ["ANYCLAUDE_MODE"] = "lmstudio"
    policy = control_pb2.SWITCH_POLICY_STOP_FIRST
    control.answers["GetMode"] = _modes(
        control_pb2.Mode(name="lmstudio", ready=True, switch_policy=policy)
    )

    done = commands.run("anyclaude.launcher")

    assert done.returncode == 42
    assert "stops nothing" in done.stderr
    assert "`anyclaudectl mode lmstudio` stops the MLX worker first" in done.stderr


def test_unknown_mode_of_one_launch(commands: Commands, control: ScriptedControl) -> None:
    """An unknown mode is refused with the known ones before claude starts; exit 2."""
    commands.environ["ANYCLAUDE_MODE"] = "warp"
    control.answers["GetMode"] = _modes(control_pb2.Mode(name="mlx-lm", ready=True))

    done = commands.run("anyclaude.launcher")

    assert done.returncode == 2
    assert "Known modes: mlx-lm." in done.stderr


def test_historic_mode_of_one_launch(commands: Commands, control: ScriptedControl) -> None:
    """A historic mode name is replaced by the current one, with a warning of one line."""
    commands.environ["ANYCLAUDE_MODE"] = "local"

    done = commands.run("anyclaude.launcher")

    assert done.returncode == 42
    env = json.loads(done.stdout)["settings"]["env"]
    assert env["ANTHROPIC_CUSTOM_HEADERS"] == "x-anyclaude-mode: mlx-lm"
    assert done.stderr == (
        'ANYCLAUDE_MODE: "local" is the old name of mode mlx-lm; please use mlx-lm.\n'
    )


def test_claude_mode_keeps_the_users_credentials(
    commands: Commands, control: ScriptedControl
) -> None:
    """In mode claude requests go to the real API, so key and model stay the user's."""
    status = ready_status()
    status.mode = "claude"
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)
    commands.environ["ANTHROPIC_API_KEY"] = "sk-real"

    seen = _launched(commands)

    assert seen["env"]["ANTHROPIC_API_KEY"] == "sk-real"
    assert seen["settings"]["env"].keys() == {"ANTHROPIC_BASE_URL", "NO_PROXY", "no_proxy"}
    assert seen["settings"]["env"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:49152"


@pytest.mark.parametrize("form", ["file", "text", "equals"])
def test_own_settings_are_merged(commands: Commands, control: ScriptedControl, form: str) -> None:
    """The user's `--settings`, file or JSON text, keeps all that does not conflict with ours."""
    own = {
        "model": "x",
        "env": {"MY_VARIABLE": "1", "ANTHROPIC_API_KEY": "sk", "ANTHROPIC_BASE_URL": "http://x"},
    }
    text = json.dumps(own)
    file = commands.home / "own.json"
    file.write_text(text)
    given = {
        "file": ["--settings", str(file)],
        "text": ["--settings", text],
        "equals": [f"--settings={file}"],
    }

    seen = _launched(commands, "-p", *given[form], "hi")

    assert seen["argv"][2:] == ["-p", "hi"]
    assert seen["settings"]["model"] == "x"
    assert seen["settings"]["env"]["MY_VARIABLE"] == "1"
    assert "ANTHROPIC_API_KEY" not in seen["settings"]["env"]
    assert seen["settings"]["env"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:49152"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--settings"],
        ["--settings", "/nowhere.json"],
        ["--settings", "{"],
        ["--settings", '{"env": []}'],
        ["--settings", "{}", "--settings={}"],
    ],
)
def test_unreadable_own_settings_exit_2(
    commands: Commands, control: ScriptedControl, arguments: list[str]
) -> None:
    """Settings that cannot be merged are refused, not dropped; exit 2."""
    done = commands.run("anyclaude.launcher", *arguments)

    assert done.returncode == 2
    assert "--settings" in done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(
    any(Path(folder, "claude").exists() for folder in _PACKAGE_MANAGERS),
    reason="this machine has a claude that the launcher finds without PATH",
)
def test_no_claude_exits_1(commands: Commands, control: ScriptedControl) -> None:
    """Without Claude Code on PATH the message says how to install it; exit 1."""
    (commands.bin / "claude").unlink()

    done = commands.run("anyclaude.launcher")

    assert done.returncode == 1
    assert "npm install -g @anthropic-ai/claude-code" in done.stderr


def test_no_service_exits_3(commands: Commands) -> None:
    """Without daemon or installed service the message says how to install one; exit 3."""
    done = commands.run("anyclaude.launcher")

    assert done.returncode == 3
    assert "anyclaudectl service install" in done.stderr
    assert "service start" not in done.stderr


def test_broken_service_exits_7(commands: Commands, control: ScriptedControl) -> None:
    """A service that gave up on its worker ends the launch at once; exit 7."""
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=degraded_status())
    control.answers["WatchStatus"] = [control_pb2.WatchStatusResponse(status=degraded_status())]

    done = commands.run("anyclaude.launcher")

    assert done.returncode == 7
    assert "Set model.path" in done.stderr


def test_loading_service_is_waited_for(commands: Commands, control: ScriptedControl) -> None:
    """While a model loads, the launcher waits and says so."""
    starting = ready_status()
    starting.readiness, starting.is_serving = control_pb2.READINESS_STARTING, False
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=starting)
    control.answers["WatchStatus"] = [
        control_pb2.WatchStatusResponse(status=starting),
        control_pb2.WatchStatusResponse(status=ready_status()),
    ]

    done = commands.run("anyclaude.launcher")

    assert done.returncode == 42
    assert "Waiting until it is ready" in done.stderr


def test_problems_of_a_ready_service_are_printed(
    commands: Commands, control: ScriptedControl
) -> None:
    """The problems of a service that is ready are printed at the start."""
    status = ready_status()
    status.problems.append("1.0 GB of this machine's memory are available: it may become slow.")
    status.notices.append("The model is b now.")
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)

    done = commands.run("anyclaude.launcher")

    assert done.returncode == 42
    assert "Note: 1.0 GB of this machine's memory are available" in done.stderr
    assert "Note: The model is b now." in done.stderr
