"""`anyclaude` in a shell with job control: the child has the terminal as if it ran alone."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from anyclaude.control.v1 import control_pb2
from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.worker.v1 import worker_pb2
from tests.integration.cli.conftest import Commands
from tests.integration.cli.scripted_control import Failure, ScriptedControl
from tests.terminal_process import TerminalProcess

# It reports the signals that it gets, and obeys typed words.
_FAKE_CLAUDE = """
import os, signal, sys
def report(number, _):
    os.write(1, f"GOT {signal.Signals(number).name}.\\n".encode())
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH):
    signal.signal(number, report)
print(f"SETTINGS={sys.argv[2]} LAUNCHER={os.getppid()} SELF={os.getpid()} BEGUN", flush=True)
for line in sys.stdin:
    word, _, number = line.strip().partition(" ")
    if word == "kill":
        if int(number) in (signal.SIGINT, signal.SIGTERM):
            signal.signal(int(number), signal.SIG_DFL)
        os.kill(os.getpid(), int(number))
    elif word == "leave":
        sys.exit(int(number))
    print("DONE", word + ".", flush=True)
"""
_PROMPT = "READY$ "


class Shell(TerminalProcess):
    """An interactive shell in which `anyclaude` runs."""

    def launch(self) -> None:
        self.wait_for(_PROMPT)
        self.type("anyclaude hello\n")
        seen = self.wait_for("BEGUN")
        self.facts = dict(re.findall(r"([A-Z]+)=(\S+)", seen))

    def exit_code(self) -> int:
        """The exit code of `anyclaude`, once the shell has its terminal back."""
        self.before_prompt = self.wait_for(_PROMPT)
        self.type("echo code=$?.\n")
        self.wait_for("\ncode=")
        return int(self.wait_for(".").rstrip("."))


@pytest.fixture
def shell(commands: Commands, control: ScriptedControl) -> Iterator[Shell]:
    """A shell whose `anyclaude` has started claude."""
    commands.put_program("claude", _FAKE_CLAUDE)
    launcher = commands.put_program("anyclaude", "")
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m anyclaude.launcher "$@"\n')
    environ = commands.environ | {"PS1": _PROMPT, "PATH": f"{commands.bin}:/usr/bin:/bin"}
    command = ["/bin/bash", "--noprofile", "--norc", "-i"]
    with Shell(command, environ, commands.home) as shell:
        shell.launch()
        yield shell


def test_the_exit_code_is_claudes(shell: Shell) -> None:
    """The shell gets claude's exit code, and nothing is printed for a launch without requests."""
    shell.type("leave 42\n")
    assert shell.exit_code() == 42
    assert "request" not in shell.before_prompt
    assert not Path(shell.facts["SETTINGS"]).exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_signal_that_ends_claude_ends_the_launcher(
    shell: Shell, number: signal.Signals
) -> None:
    """The shell sees the same signal as the end of the launcher."""
    shell.type(f"kill {int(number)}\n")
    assert shell.exit_code() == 128 + number


def test_ctrl_c_reaches_claude_once(shell: Shell) -> None:
    """Ctrl-C is claude's own: it gets one SIGINT, and the launcher goes on waiting."""
    shell.type("\x03")
    shell.wait_for("GOT SIGINT.")
    shell.type("say\n")
    assert "GOT" not in shell.wait_for("DONE say.")
    shell.type("leave 0\n")
    assert shell.exit_code() == 0


def test_a_signal_to_the_launcher_reaches_claude(shell: Shell) -> None:
    """Who ends the launcher by its process id means claude, which may refuse."""
    for name in ("SIGTERM", "SIGHUP"):
        os.kill(int(shell.facts["LAUNCHER"]), signal.Signals[name])
        shell.wait_for(f"GOT {name}.")
    shell.type("leave 3\n")
    assert shell.exit_code() == 3


_SIGNAL_BEFORE_THE_CHILD = """
import os, signal
from anyclaude.launcher import foreground
spawn = os.posix_spawn
def late_spawn(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    return spawn(*arguments, **options)
os.posix_spawn = late_spawn
print(os.WTERMSIG(foreground.run("/bin/sleep", ["sleep", "600"], {})))
"""


def test_a_signal_that_comes_before_claude_reaches_it() -> None:
    """The launcher has its handlers before the child, so that no signal ends it alone."""
    command = [sys.executable, "-c", _SIGNAL_BEFORE_THE_CHILD]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.stdout == f"{int(signal.SIGTERM)}\n"


def test_a_stop_gives_the_terminal_back(shell: Shell) -> None:
    """When claude stops itself, as for Ctrl-Z, the shell goes on, and `fg` continues claude."""
    shell.type(f"kill {int(signal.SIGSTOP)}\n")
    shell.wait_for("Stopped")
    shell.wait_for(_PROMPT)
    shell.type("fg\n")
    shell.wait_for("DONE kill.")
    shell.type("leave 7\n")
    assert shell.exit_code() == 7


def test_the_summary_is_of_this_launch(shell: Shell, control: ScriptedControl) -> None:
    """The launch that claude's requests name is the one whose figures are asked for and printed."""
    usage = worker_pb2.Usage(cache_read_tokens=900, input_tokens=100)
    record = frontend_pb2.RequestRecord(usage=usage)
    control.answers["ListRequests"] = control_pb2.ListRequestsResponse(records=[record])
    headers = Path(shell.facts["SETTINGS"]).read_text()

    shell.type("leave 0\n")
    assert shell.exit_code() == 0

    assert "1 request," in shell.before_prompt
    assert "900 tokens" in shell.before_prompt
    (asked,) = control.requests("ListRequests")
    assert f"x-anyclaude-launch: {asked.launch_id}" in headers


def test_a_summary_that_cannot_be_asked_for(shell: Shell, control: ScriptedControl) -> None:
    """If the service has ended meanwhile, claude's exit code stays, and one sentence says so."""
    control.answers["ListRequests"] = Failure(grpc.StatusCode.UNAVAILABLE, "stopping", "STOPPING")
    shell.type("leave 5\n")
    assert shell.exit_code() == 5
    assert "no summary of this session" in shell.before_prompt
