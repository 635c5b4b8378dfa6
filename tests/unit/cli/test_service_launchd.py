"""The launchd agent: its plist, and the order of launchctl commands."""

import plistlib
from pathlib import Path

import pytest

from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.cli.service.launchd import Launchd
from anyclaude.cli.service.manager import Program
from tests.unit.cli.recorded_commands import FakeTime, RecordedCommands, Reply

_TARGET = "gui/501/dev.anyclaude.daemon"
_PLIST = "/Users/you/Library/LaunchAgents/dev.anyclaude.daemon.plist"
_BOOTSTRAP = f"launchctl bootstrap gui/501 {_PLIST}"


class _Launchctl:
    """A launchctl as the manuals and field reports describe it."""

    def __init__(self, *, loaded: bool, lingers: int = 0, bootstraps: tuple[int, ...] = ()) -> None:
        self.loaded = loaded
        self._pid: int | None = 4711
        self._drains = False
        # How many times `print` still finds the job after bootout, or its process after SIGTERM.
        self._lingers = lingers
        self._leaving = False
        self._bootstraps = list(bootstraps)

    def __call__(self, line: str) -> Reply:
        verb = line.split()[1]
        answer: Reply = getattr(self, f"_{verb}", lambda: (0, ""))()
        return answer

    def _print(self) -> Reply:
        if self._leaving and self._lingers > 0:
            self._lingers -= 1
        elif self._leaving:
            self._leaving = self.loaded = False
        if not self.loaded:
            return 113, "Could not find service"
        if self._drains and self._lingers > 0:
            self._lingers -= 1
        elif self._drains:
            self._drains, self._pid = False, None
        if self._pid is None:
            return 0, f"{_TARGET} = {{\n\tstate = not running\n}}\n"
        return 0, f"{_TARGET} = {{\n\tstate = running\n\tpid = {self._pid}\n}}\n"

    def _kill(self) -> Reply:
        if self._pid is None:
            return 3, "Could not send signal: No process to signal."
        self._drains = True
        return 0, ""

    def _kickstart(self) -> Reply:
        self._drains, self._pid = False, 4712
        return 0, ""

    def _bootout(self) -> Reply:
        if not self.loaded:
            return 3, "Boot-out failed: 3: No such process"
        self._leaving = True
        return 36, "Operation now in progress"

    def _bootstrap(self) -> Reply:
        code = self._bootstraps.pop(0) if self._bootstraps else 0
        if code:
            return code, f"Bootstrap failed: {code}"
        self.loaded = True
        return 0, ""


def _agent(launchctl: _Launchctl) -> tuple[Launchd, RecordedCommands, FakeTime]:
    run, time = RecordedCommands(launchctl), FakeTime()
    return Launchd(home=Path("/Users/you"), uid=501, run=run, clock=time.clock), run, time


def test_plist_says_what_launchd_must_know() -> None:
    """The plist has an absolute program, restart on failure only, and raised limits."""
    agent, _, _ = _agent(_Launchctl(loaded=False))
    program = Program(Path("/v & <x>/bin/anyclauded"), {"PATH": "/v/bin"}, Path("/logs/boot.log"))

    plist = plistlib.loads(agent.render(program))

    assert plist == {
        "Label": "dev.anyclaude.daemon",
        "ProgramArguments": ["/v & <x>/bin/anyclauded"],
        "EnvironmentVariables": {"PATH": "/v/bin"},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ProcessType": "Interactive",
        "ExitTimeOut": 60,
        "SoftResourceLimits": {"NumberOfFiles": 8192},
        "StandardErrorPath": "/logs/boot.log",
        "Umask": 63,
    }


def test_state_is_read_from_print() -> None:
    """The pid comes from `launchctl print`; an unknown service is neither loaded nor running."""
    loaded, _, _ = _agent(_Launchctl(loaded=True))
    unknown, _, _ = _agent(_Launchctl(loaded=False))

    assert (loaded.state().running, loaded.state().pid) == (True, 4711)
    assert (unknown.state().loaded, unknown.state().pid) == (False, None)


def test_upgrade_waits_until_the_old_job_is_gone() -> None:
    """bootout, print until gone, enable, bootstrap: in that order, over a running job."""
    agent, run, time = _agent(_Launchctl(loaded=True, lingers=5))

    agent.activate()

    assert run.changes() == [
        f"launchctl bootout {_TARGET}",
        f"launchctl enable {_TARGET}",
        _BOOTSTRAP,
    ]
    assert run.lines.index(f"launchctl enable {_TARGET}") > 5
    assert time.seconds > 1


def test_first_install_needs_no_job_to_remove() -> None:
    """bootout of an unknown service is no error."""
    agent, run, _ = _agent(_Launchctl(loaded=False))

    agent.activate()

    assert run.changes()[-2:] == [f"launchctl enable {_TARGET}", _BOOTSTRAP]


def test_job_that_never_leaves_is_a_timeout() -> None:
    """Thirty seconds after bootout the command fails and names what to check."""
    agent, _, time = _agent(_Launchctl(loaded=True, lingers=10_000))

    with pytest.raises(CommandError, match="launchctl print") as caught:
        agent.stop()

    assert caught.value.code is ExitCode.TIMEOUT
    assert 30 <= time.seconds < 31


@pytest.mark.parametrize(("failures", "calls"), [((), 1), ((5,), 2), ((5, 37, 5), 4)])
def test_bootstrap_is_tried_again(failures: tuple[int, ...], calls: int) -> None:
    """Codes 5 and 37 mean that launchd is still cleaning up, and are retried up to three times."""
    agent, run, _ = _agent(_Launchctl(loaded=False, bootstraps=failures))

    agent.start()

    assert run.lines.count(_BOOTSTRAP) == calls


@pytest.mark.parametrize(("failures", "calls"), [((5, 5, 5, 5), 4), ((125,), 1)])
def test_bootstrap_that_fails_for_good(failures: tuple[int, ...], calls: int) -> None:
    """Other codes are not retried, and the error quotes launchctl."""
    agent, run, _ = _agent(_Launchctl(loaded=False, bootstraps=failures))

    with pytest.raises(CommandError, match=f"Bootstrap failed: {failures[0]}") as caught:
        agent.start()

    assert caught.value.code is ExitCode.FAILED
    assert run.lines.count(_BOOTSTRAP) == calls


def test_start_of_a_loaded_job() -> None:
    """A loaded job is kicked, not loaded again."""
    agent, run, _ = _agent(_Launchctl(loaded=True))

    agent.start()

    assert run.changes() == [f"launchctl kickstart {_TARGET}"]


def test_a_restart_lets_answers_end() -> None:
    """SIGTERM, print until the process is gone, then kickstart; nothing is killed."""
    agent, run, time = _agent(_Launchctl(loaded=True, lingers=5))

    agent.restart()

    kill, kickstart = f"launchctl kill SIGTERM {_TARGET}", f"launchctl kickstart {_TARGET}"
    assert run.changes() == [kill, kickstart]
    assert run.lines.index(kickstart) - run.lines.index(kill) == 7
    assert time.seconds > 1
    assert agent.state().pid == 4712


def test_a_restart_kills_a_daemon_that_does_not_end() -> None:
    """Sixty seconds after SIGTERM the daemon is killed, as `bootout` would do."""
    agent, run, time = _agent(_Launchctl(loaded=True, lingers=10_000))

    agent.restart()

    assert run.changes() == [
        f"launchctl kill SIGTERM {_TARGET}",
        f"launchctl kickstart -k {_TARGET}",
    ]
    assert 60 <= time.seconds < 61


def test_a_restart_of_a_stopped_job_starts_it() -> None:
    """Without a process there is nothing to wait for."""
    launchctl = _Launchctl(loaded=True)
    agent, run, time = _agent(launchctl)
    launchctl("launchctl kill SIGTERM")

    assert agent.state().pid is None
    agent.restart()

    assert run.changes() == [f"launchctl kickstart {_TARGET}"]
    assert time.seconds == 0


def test_boot_messages_are_those_since_the_daemons_log(tmp_path: Path) -> None:
    """launchd's file for standard error is quoted only where it is newer than the daemon's log."""
    agent = Launchd(home=tmp_path, uid=501, run=RecordedCommands(lambda line: pytest.fail(line)))
    boot_log = tmp_path / "anyclauded.boot.log"
    assert agent.boot_messages(0) == ""

    agent.file.parent.mkdir(parents=True)
    agent.file.write_bytes(agent.render(Program(Path("/v/bin/anyclauded"), {}, boot_log)))
    assert agent.boot_messages(0) == ""

    boot_log.write_text("Operation not permitted\n")
    written = boot_log.stat().st_mtime
    assert agent.boot_messages(written - 1) == "Operation not permitted\n"
    assert agent.boot_messages(written) == ""
