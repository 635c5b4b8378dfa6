"""What runs now: in `status`, `requests`, `top` and the status line of Claude Code."""

import io
import json
import re
import sys

import pytest

from anyclaude.control.v1 import control_pb2
from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.worker.v1 import worker_pb2
from tests.integration.cli.conftest import Commands, ready_status
from tests.integration.cli.scripted_control import ScriptedControl
from tests.terminal_process import TerminalProcess

_USAGE = worker_pb2.Usage(
    input_tokens=1, cache_read_tokens=18_300, cache_creation_tokens=189, output_tokens=84
)


def _record(session: str) -> frontend_pb2.RequestRecord:
    record = frontend_pb2.RequestRecord(
        request_id="req_0123456789abcdef01234567",
        mode="mlx-lm",
        status=200,
        outcome=frontend_pb2.OUTCOME_COMPLETED,
        usage=_USAGE,
        identity=worker_pb2.Identity(
            session_id=session, request_class=worker_pb2.REQUEST_CLASS_MAIN
        ),
    )
    record.start_time.GetCurrentTime()
    record.time_to_first_token.FromMilliseconds(310)
    record.timings.decode.FromSeconds(2)
    return record


def _running(session: str, prefilled: int = 7_400) -> frontend_pb2.RunningRequest:
    running = frontend_pb2.RunningRequest(prefilled_tokens=prefilled, prompt_tokens=18_490)
    running.record.CopyFrom(_record(session))
    running.record.ClearField("time_to_first_token")
    running.record.identity.request_class = worker_pb2.REQUEST_CLASS_SUBAGENT
    running.record.duration.FromSeconds(200)
    return running


@pytest.fixture
def busy(control: ScriptedControl) -> ScriptedControl:
    """A service that reads a prompt of one session and has answered another."""
    status = ready_status()
    status.requests.append(_running("now"))
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)
    control.answers["ListRequests"] = control_pb2.ListRequestsResponse(
        records=[_record("before")], running=[_running("now")]
    )
    return control


@pytest.mark.parametrize("verb", ["status", "requests", "top"])
def test_a_running_prefill_is_shown(commands: Commands, busy: ScriptedControl, verb: str) -> None:
    """The share of the prompt that is computed stands beside the request; its line fits 80."""
    arguments = [verb, "--count", "1"] if verb == "top" else [verb]
    done = commands.ctl(*arguments)

    (line,) = [line for line in done.stdout.splitlines() if "(40 %)" in line]
    assert "prompt 7,400 of 18,490" in line
    assert "3m 20s" in line
    assert len(line) <= 80


@pytest.mark.parametrize("verb", ["status", "requests", "top"])
def test_conversations_are_named(commands: Commands, busy: ScriptedControl, verb: str) -> None:
    """A running request and one that ended are shown by project and first words."""
    folder = commands.home / ".claude/projects/-home-me-shop"
    folder.mkdir(parents=True)
    for session, words in (("now", "Sort the orders of this year"), ("before", "Draw a chart")):
        line = {"type": "user", "message": {"content": words}, "cwd": "/home/me/shop"}
        (folder / f"{session}.jsonl").write_text(json.dumps(line))

    done = commands.ctl(verb, *(["--count", "1"] if verb == "top" else []))

    (running,) = [line for line in done.stdout.splitlines() if "(40 %)" in line]
    assert running.startswith("subagent shop: Sort the ")
    assert verb == "status" or "  shop: Draw a chart" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80 or verb == "status"


def test_running_requests_as_json(commands: Commands, busy: ScriptedControl) -> None:
    """Both lists are in the document of `requests`; those of `status` and `top` have them too."""
    documents = [
        json.loads(commands.ctl("requests", "--json").stdout)["running"],
        json.loads(commands.ctl("status", "--json").stdout)["requests"],
        json.loads(commands.ctl("top", "--json").stdout)["status"]["requests"],
    ]

    for (running,) in documents:
        assert (running["prefilled_tokens"], running["prompt_tokens"]) == (7_400, 18_490)
        assert running["record"]["identity"]["session_id"] == "now"


def test_top_on_a_terminal(commands: Commands, busy: ScriptedControl) -> None:
    """It draws again until Ctrl-C, and no line is wider than 80 columns."""
    commands.environ |= {"TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "anyclaude.cli", "top", "--interval", "0.1"]
    with TerminalProcess(command, commands.environ, commands.home) as terminal:
        pictures = [terminal.wait_for("42  completed") for _ in range(3)]
        terminal.interrupt()
        code, _ = terminal.wait_end()

    assert code == 130
    for picture in pictures:
        drawn = picture.rpartition("\x1b[H\x1b[J")[2]
        lines = re.sub(r"\x1b\[[0-9;]*m", "", drawn).splitlines()
        assert "18,300" in lines[-1]
        assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("session", "line"),
    [
        ("before", "18,300 of 18,490 tokens reused | first token 0.31 s | 42 tokens/s"),
        ("now", "prompt 7,400 of 18,490 (40 %)"),
    ],
)
def test_status_line(
    commands: Commands,
    busy: ScriptedControl,
    monkeypatch: pytest.MonkeyPatch,
    session: str,
    line: str,
) -> None:
    """One line about the session that Claude Code names on standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"session_id": session})))

    done = commands.ctl("statusline")

    assert done.stdout == f"mlx-lm | anyclaude-demo | {line}\n"


def test_status_line_without_a_service(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claude Code shows a line, so there is one, and the exit code is 0."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("{}"))

    done = commands.ctl("statusline")

    assert done.returncode == 0
    assert done.stdout == "anyclaude is not running\n"
