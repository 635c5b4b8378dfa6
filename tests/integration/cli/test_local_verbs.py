"""`config`, `logs` and `env`: what works without the daemon, and what a running one adds."""

import json
import signal
import tomllib
from pathlib import Path

from anyclaude.control.v1 import control_pb2
from tests.integration.cli.conftest import Commands, read_all
from tests.integration.cli.scripted_control import ScriptedControl


def _entry(document: dict[str, object], key: str) -> dict[str, object]:
    entries = document["entries"]
    assert isinstance(entries, list)
    return next(entry for entry in entries if entry["key"] == key)


def _write_log(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as log:
        log.writelines(f"{line}\n" for line in lines)


def _log_line(event: str, level: str = "info") -> str:
    return json.dumps({"timestamp": "2026-01-01T00:00:00Z", "level": level, "event": event, "n": 1})


def test_config_from_the_files(commands: Commands) -> None:
    """Without a daemon, settings come from file and environment, with their origins."""
    commands.config_file.parent.mkdir(parents=True)
    commands.config_file.write_text("[cache]\nmax_prefixes = 3\n")
    commands.environ["ANYCLAUDE_PORT"] = "50001"

    document = json.loads(commands.ctl("config", "--json").stdout)
    for_people = commands.ctl("config", "show")

    assert document["source"] == "files"
    assert _entry(document, "cache.max_prefixes") == {
        "key": "cache.max_prefixes",
        "value": 3,
        "origin": "file",
    }
    assert _entry(document, "server.port")["origin"] == "environment"
    assert _entry(document, "mode")["origin"] == "default"
    assert "no daemon is running" in for_people.stderr


def test_config_from_the_daemon(commands: Commands, control: ScriptedControl) -> None:
    """A running daemon's settings win over what this shell would compute."""
    control.answers["GetConfig"] = control_pb2.GetConfigResponse(
        entries=[control_pb2.ConfigEntry(key="server.port", value_json="50002", origin="flag")],
        file="/x/config.toml",
    )

    document = json.loads(commands.ctl("config", "show", "--json").stdout)

    assert document["source"] == "daemon"
    assert document["entries"] == [{"key": "server.port", "value": 50002, "origin": "flag"}]


def test_config_path(commands: Commands) -> None:
    """`config path` prints the file's path even if there is no file."""
    assert commands.ctl("config", "path").stdout == f"{commands.config_file}\n"
    assert json.loads(commands.ctl("config", "path", "--json").stdout)["exists"] is False


def test_config_check(commands: Commands) -> None:
    """A valid configuration is exit 0; an invalid one is exit 1 with one line per problem."""
    sound = commands.ctl("config", "check")
    commands.config_file.parent.mkdir(parents=True)
    commands.config_file.write_text("mod = 'x'\n[server]\nport = 99999\n")
    broken = commands.ctl("config", "check")
    document = json.loads(commands.ctl("config", "check", "--json").stdout)
    shown = commands.ctl("config", "show")

    assert sound.returncode == 0
    assert broken.returncode == 1
    assert "Did you mean mode?" in broken.stderr
    assert "server.port" in broken.stderr
    assert document["valid"] is False
    assert len(document["problems"]) == 2
    assert shown.returncode == 1
    assert "Traceback" not in shown.stderr


def test_config_set(commands: Commands) -> None:
    """A value changes in its own type; comments stay, and one that does not fit is refused."""
    commands.config_file.parent.mkdir(parents=True)
    commands.config_file.write_text("# Mine.\n[server]\nport = 1 # free\n")

    changed = commands.ctl("config", "set", "server.port", "50123")
    again = json.loads(commands.ctl("config", "set", "server.port", "50123", "--json").stdout)
    commands.ctl("config", "set", "server.allowed_hosts", '["a", "b"]')
    commands.ctl("config", "set", "model.path", "~/models/a b")
    wrong = commands.ctl("config", "set", "server.port", "many")
    unknown = commands.ctl("config", "set", "server.prot", "1")

    text = commands.config_file.read_text()
    assert text.startswith("# Mine.\n[server]\nport = 50123 # free\n")
    assert tomllib.loads(text) == {
        "server": {"port": 50123, "allowed_hosts": ["a", "b"]},
        "model": {"path": "~/models/a b"},
    }
    assert "server.port = 50123" in changed.stdout
    assert again["changed"] is False
    assert wrong.returncode == unknown.returncode == 2
    assert "Did you mean server.port?" in unknown.stderr


def test_logs_without_a_log_exit_4(commands: Commands) -> None:
    """If no daemon has ever run, `logs` exits with 4 and prints where the log would be."""
    done = commands.ctl("logs")

    assert done.returncode == 4
    assert str(commands.log_file) in done.stderr


def test_logs_tail_and_level(commands: Commands) -> None:
    """Without a daemon, `logs` shows the newest lines of a level, including raw crash text."""
    _write_log(
        commands.log_file,
        _log_line("first", "warning"),
        _log_line("second"),
        "Segmentation fault",
        _log_line("third", "error"),
    )

    newest = commands.ctl("logs", "-n", "1")
    warnings = commands.ctl("logs", "--level", "warning")
    as_json = [json.loads(line) for line in commands.ctl("logs", "--json").stdout.splitlines()]

    assert newest.stdout == "2026-01-01T00:00:00Z error    third  n=1\n"
    assert [("first" in warnings.stdout), ("second" in warnings.stdout)] == [True, False]
    assert "Segmentation fault" in warnings.stdout
    assert [line["event"] for line in as_json] == [
        "first",
        "second",
        "Segmentation fault",
        "third",
    ]
    assert commands.ctl("logs", "--level", "loud").returncode == 2


def test_logs_follow_through_a_rotation(commands: Commands) -> None:
    """`logs -f` prints new lines, follows a rotation, and ends with 130 on Ctrl-C."""
    _write_log(commands.log_file, _log_line("before"))
    following = commands.start("anyclaude.cli", "logs", "-f", "-n", "1")
    assert following.stdout is not None
    assert "before" in following.stdout.readline()

    _write_log(commands.log_file, _log_line("appended"))
    assert "appended" in following.stdout.readline()
    commands.log_file.rename(commands.log_file.with_suffix(".log.1"))
    _write_log(commands.log_file, _log_line("rotated"))
    assert "rotated" in following.stdout.readline()

    following.send_signal(signal.SIGINT)
    assert following.wait(30) == 130
    assert "Traceback" not in read_all(following.stderr)


def test_env_for_a_shell(commands: Commands, control: ScriptedControl) -> None:
    """`env` prints exports that a shell can evaluate, and unsets conflicting variables."""
    done = commands.ctl("env")

    assert "export ANTHROPIC_BASE_URL=http://127.0.0.1:49152" in done.stdout
    assert "export ANTHROPIC_MODEL=anyclaude-demo" in done.stdout
    assert "export CLAUDE_CODE_MAX_CONTEXT_TOKENS=131072" in done.stdout
    assert "unset ANTHROPIC_API_KEY" in done.stdout


def test_env_as_json_with_token_and_mode(commands: Commands, control: ScriptedControl) -> None:
    """The token comes from the daemon's token file, the mode header from the shell."""
    token_file = commands.home / "token"
    token_file.write_text("s3cret\n")
    control.answers["GetConfig"] = control_pb2.GetConfigResponse(
        entries=[
            control_pb2.ConfigEntry(
                key="server.auth_token_file", value_json=json.dumps(str(token_file))
            )
        ]
    )
    commands.environ["ANYCLAUDE_MODE"] = "lmstudio"

    bundle = json.loads(commands.ctl("env", "--json").stdout)["env"]

    assert bundle["ANTHROPIC_AUTH_TOKEN"] == "s3cret"
    assert bundle["ANTHROPIC_CUSTOM_HEADERS"] == "x-anyclaude-mode: lmstudio"

    token_file.unlink()
    missing = commands.ctl("env")
    assert missing.returncode == 1
    assert "server.auth_token_file" in missing.stderr
