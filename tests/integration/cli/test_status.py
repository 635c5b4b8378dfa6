"""`anyclaudectl status`, `wait`, `version` and `shutdown` against a scripted daemon."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from anyclaude.control.v1 import control_pb2
from tests.integration.cli.conftest import Commands, degraded_status, read_all, ready_status
from tests.integration.cli.scripted_control import Failure, ScriptedControl, Silence


def _starting() -> control_pb2.Status:
    status = ready_status()
    status.readiness, status.is_serving = control_pb2.READINESS_STARTING, False
    return status


def _watch(*states: control_pb2.Status) -> list[control_pb2.WatchStatusResponse]:
    return [control_pb2.WatchStatusResponse(status=status) for status in states]


def test_status_for_people(commands: Commands, control: ScriptedControl) -> None:
    """A ready service shows mode, address, demo model with advice, memory and workers; exit 0."""
    done = commands.ctl("status")

    assert done.returncode == 0, done.stderr
    for expected in (
        "ready",
        "mlx-lm",
        "http://127.0.0.1:49152",
        "demo model; `anyclaudectl model recommend`",
        "caches 1.5 GB of 8.0 GB",
        "frontend  ready",
    ):
        assert expected in done.stdout
    assert "\x1b" not in done.stdout


def test_status_as_json(commands: Commands, control: ScriptedControl) -> None:
    """The document has stable keys, words for states, numbers for bytes and RFC 3339 times."""
    document = json.loads(commands.ctl("status", "--json").stdout)

    assert document["schema_version"] == 1
    assert document["readiness"] == "ready"
    assert document["memory"]["active_bytes"] == 3_000_000_000
    assert document["start_time"].endswith("Z")
    assert document["workers"][0]["state"] == "ready"
    assert document["workers"][0]["last_exit"] is None
    assert document["problems"] == []


def test_loosened_schemas(commands: Commands, control: ScriptedControl) -> None:
    """The first lines of what schemas lose are shown, with the number of the others."""
    status = ready_status()
    status.loosened_schemas.extend(f"Tool{n}.path: pattern not enforced" for n in range(7))
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)

    shown = commands.ctl("status").stdout
    assert [f"Tool{n}.path" in shown for n in range(7)] == [True] * 5 + [False] * 2
    assert "and 2 more" in shown
    assert len(json.loads(commands.ctl("status", "--json").stdout)["loosened_schemas"]) == 7


def test_degraded_status_exits_7(commands: Commands, control: ScriptedControl) -> None:
    """A degraded service shows what is wrong, why the worker ended and what to do; exit 7."""
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=degraded_status())

    for_people, as_json = commands.ctl("status"), commands.ctl("status", "--json")

    assert for_people.returncode == as_json.returncode == 7
    assert "Set model.path and restart mlx." in for_people.stdout
    assert "code 69: model folder /m is missing" in for_people.stdout
    assert json.loads(as_json.stdout)["workers"][1]["last_exit"]["code"] == 69


def test_no_daemon_exits_3(commands: Commands) -> None:
    """Without a daemon, verbs that need one name the socket and the start command; exit 3."""
    for verb in (
        ["status"],
        ["mode"],
        ["cache", "list"],
        ["metrics"],
        ["requests"],
        ["worker", "list"],
        ["env"],
        ["shutdown"],
    ):
        done = commands.ctl(*verb)
        assert done.returncode == 3, verb
        assert str(commands.socket_path) in done.stderr
        assert "anyclaudectl service install" in done.stderr
        assert done.stdout == ""


def test_the_remedy_fits_the_state(commands: Commands, request: pytest.FixtureRequest) -> None:
    """A missing or an outdated daemon: each message names only the command that works here."""

    def remedies() -> list[str]:
        message = commands.ctl("status").stderr
        verbs = ("service install", "service start", "shutdown", "make run")
        return [verb for verb in verbs if f"{verb}`" in message]

    def install() -> Path:
        unit = commands.home / "xdg/systemd/user/anyclaude.service"
        unit.parent.mkdir(parents=True, exist_ok=True)
        unit.touch()
        return unit

    assert remedies() == ["service install", "make run"]
    unit = install()
    assert remedies() == ["service start"]
    control: ScriptedControl = request.getfixturevalue("control")
    control.answers["GetStatus"] = Failure(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
    assert remedies() == ["service install"]
    unit.unlink()
    assert remedies() == ["shutdown"]


def test_socket_left_behind_exits_3(commands: Commands) -> None:
    """A socket file that a killed daemon left has its own message; exit 3."""
    commands.socket_path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(commands.socket_path))

    done = commands.ctl("status")

    assert done.returncode == 3
    assert "nothing listens" in done.stderr


def test_silent_daemon_exits_6(commands: Commands) -> None:
    """A daemon that accepts a connection and sends nothing gets two seconds; exit 6."""
    commands.socket_path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(commands.socket_path))
        mute.listen(16)
        done = commands.ctl("status")

    assert done.returncode == 6
    assert "does not answer" in done.stderr


def test_slow_call_exits_6(commands: Commands, control: ScriptedControl) -> None:
    """A call without a response ends at its deadline; exit 6."""
    control.answers["GetStatus"] = Silence()

    done = commands.ctl("status")

    assert done.returncode == 6
    assert "did not answer in time" in done.stderr


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (Failure(grpc.StatusCode.INTERNAL, "it broke"), 1, "it broke"),
        (Failure(grpc.StatusCode.UNIMPLEMENTED, ""), 1, "another version"),
        (Failure(grpc.StatusCode.INVALID_ARGUMENT, "no such word"), 2, "no such word"),
        (Failure(grpc.StatusCode.UNAVAILABLE, "gone"), 3, "ended during the call"),
        (Failure(grpc.StatusCode.UNAVAILABLE, "mlx starts", "WORKER_STARTING"), 5, "mlx starts"),
        (Failure(grpc.StatusCode.ABORTED, "busy", "MODE_CHANGING"), 5, "busy"),
        (Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "mlx is slow", "SLOW"), 6, "mlx is slow"),
    ],
)
def test_failures_of_the_daemon(
    commands: Commands, control: ScriptedControl, failure: Failure, code: int, said: str
) -> None:
    """Each gRPC status has its exit code, and the daemon's message is printed."""
    control.answers["GetStatus"] = failure

    done = commands.ctl("status")

    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_verbs_and_options_exit_2(commands: Commands) -> None:
    """Usage errors are printed on standard error; exit 2."""
    for arguments in (["frobnicate"], ["status", "--frobnicate"], ["wait", "--timeout", "soon"]):
        done = commands.ctl(*arguments)
        assert done.returncode == 2, arguments
        assert done.stderr
        assert done.stdout == ""


def test_wait_returns_at_readiness(commands: Commands, control: ScriptedControl) -> None:
    """`wait --ready` returns when the status changes to ready; exit 0."""
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=_starting())
    control.answers["WatchStatus"] = _watch(_starting(), ready_status())

    done = commands.ctl("wait", "--ready", "--timeout", "30", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["readiness"] == "ready"


def test_wait_without_ready_returns_at_the_first_answer(
    commands: Commands, control: ScriptedControl
) -> None:
    """`wait` alone returns when a starting daemon responds; exit 0."""
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=_starting())

    assert commands.ctl("wait", "--timeout", "30").returncode == 0


def test_wait_times_out(commands: Commands, control: ScriptedControl) -> None:
    """A service that does not become ready ends the wait with its last state; exit 6."""
    control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=_starting())
    control.answers["WatchStatus"] = _watch(_starting())

    done = commands.ctl("wait", "--ready", "--timeout", "0.5")

    assert done.returncode == 6
    assert "The service is starting." in done.stderr


def test_wait_for_a_daemon_that_never_comes(commands: Commands) -> None:
    """If no daemon starts in time, the message says that none runs; exit 6."""
    done = commands.ctl("wait", "--ready", "--timeout", "0.2")

    assert done.returncode == 6
    assert "anyclauded is not running" in done.stderr


def test_wait_begun_before_the_daemon(commands: Commands) -> None:
    """A wait that began before the daemon finds it once it runs."""
    waiting = commands.start("anyclaude.cli", "wait", "--timeout", "30")
    control = ScriptedControl(commands.socket_path)
    try:
        assert waiting.wait(30) == 0, read_all(waiting.stderr)
    finally:
        control.close()


def test_wait_gives_up_on_a_fatal_worker(commands: Commands, control: ScriptedControl) -> None:
    """A problem that waiting cannot solve ends the wait at once; exit 7 with the problem."""
    control.answers["WatchStatus"] = _watch(degraded_status())

    done = commands.ctl("wait", "--ready", "--timeout", "60")

    assert done.returncode == 7
    assert "Set model.path" in done.stderr


def test_interrupted_wait_exits_130(commands: Commands, control: ScriptedControl) -> None:
    """Ctrl-C ends a wait without a traceback; exit 130."""
    control.answers["WatchStatus"] = _watch(_starting())
    waiting = commands.start("anyclaude.cli", "wait", "--ready", "--timeout", "60")
    control.wait_for_call("WatchStatus")
    waiting.send_signal(signal.SIGINT)
    _, stderr = waiting.communicate(timeout=30)

    assert waiting.returncode == 130
    assert "Traceback" not in stderr


def test_version_with_and_without_a_daemon(commands: Commands) -> None:
    """`version` works without a daemon, and warns if the daemon has another version."""
    alone = commands.ctl("version", "--json")
    control = ScriptedControl(commands.socket_path)
    try:
        control.answers["GetStatus"] = control_pb2.GetStatusResponse(
            status=control_pb2.Status(version="9.9.9")
        )
        beside = commands.ctl("version")
    finally:
        control.close()

    assert alone.returncode == 0
    assert json.loads(alone.stdout)["daemon_version"] is None
    assert "anyclauded 9.9.9" in beside.stdout
    assert "another version" in beside.stderr


def test_shutdown_waits_for_the_process_to_end(
    commands: Commands, control: ScriptedControl
) -> None:
    """`shutdown` returns once the process has ended, and exits with 6 otherwise."""
    status = ready_status()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as daemon:
        status.pid = daemon.pid
        control.answers["GetStatus"] = control_pb2.GetStatusResponse(status=status)
        alive = commands.ctl("shutdown", "--timeout", "0.1")
        assert daemon.stdin is not None
        daemon.kill()
        daemon.wait()
        gone = commands.ctl("shutdown", "--json")

    assert alive.returncode == 6
    assert "still stopping" in alive.stderr
    assert gone.returncode == 0
    assert json.loads(gone.stdout)["stopped_pid"] == daemon.pid
    assert len(control.requests("Shutdown")) == 2
