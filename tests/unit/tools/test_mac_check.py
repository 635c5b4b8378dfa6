"""`tools/mac-check`: the report, the reading of what macOS prints, and the steps under launchd."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tools.mac_check import __main__ as command
from tools.mac_check import launchd, machine, measures
from tools.mac_check.report import (
    CheckError,
    Outcome,
    Section,
    SkippedError,
    run_section,
    scalars,
    table,
)
from tools.mac_check.service import Commands, read_answer

# Recorded on a Mac with 16 GB.
VM_STAT = """\
Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               47162.
Pages active:                            321443.
Pages inactive:                          318541.
Pages speculative:                         1934.
Pages throttled:                              0.
Pages wired down:                        134265.
Pages purgeable:                           3012.
"Translation faults":                 912345678.
Pages copy-on-write:                   34567890.
Pages zero filled:                    512345678.
Pages reactivated:                      9876543.
Pages purged:                           1234567.
File-backed pages:                       201734.
Anonymous pages:                         440184.
Pages stored in compressor:              512345.
Pages occupied by compressor:            183456.
Decompressions:                        12345678.
Swapins:                                      0.
"""


def _printing(outputs: Mapping[str, str]) -> machine.Reader:
    """A reader that answers a command by its first word; others are missing."""

    def run(arguments: Sequence[str]) -> str | None:
        return outputs.get(arguments[0])

    return run


def test_a_failing_section_does_not_end_the_others():
    """The failed section shows its error, and the next section runs."""

    def fail() -> list[str]:
        raise subprocess.CalledProcessError(3, ["tool"], output="", stderr="what went wrong")

    def skip() -> list[str]:
        raise SkippedError("It needs a Mac.")

    ran = [run_section(Section("n", "Name", run)) for run in (fail, skip, lambda: ["fine"])]
    assert [one.outcome for one in ran] == [Outcome.FAILED, Outcome.SKIPPED, Outcome.DONE]
    assert "what went wrong" in ran[0].markdown()
    assert "It needs a Mac." in ran[1].markdown()
    assert "## Name (done)\n\nfine" in ran[2].markdown()


def test_texts_of_a_document_stay_out_of_the_report():
    """Titles of caches come from prompts: only numbers, flags and lengths are shown."""
    document = {"wrong": [{"title": "secret"}], "noise": {"floor": 0.5}, "note": "secret", "n": 3}
    assert scalars(document) == [("wrong (count)", 1), ("noise.floor", 0.5), ("n", 3)]


def test_a_cell_cannot_break_the_table():
    """A separator inside a value is escaped."""
    assert table(("a", "b"), [("x", "1|2\n3")])[-1] == "| x | 1\\|2 3 |"


def test_vm_stat_gives_amounts_in_bytes():
    """Pages become bytes by the page size that it names; counters of events are left out."""
    found = machine.parse_vm_stat(VM_STAT)
    assert found["Pages wired down"] == 134265 * 16384
    assert found["Anonymous pages"] == 440184 * 16384
    assert found["Pages occupied by compressor"] == 183456 * 16384
    assert len(found) == 11
    assert machine.parse_vm_stat("") == {}


def test_what_is_in_the_way_is_read_from_the_systems_commands():
    """The port's owner, Low Power Mode and Gatekeeper's mark come from recorded outputs."""
    run = _printing(
        {
            "lsof": "p512\ncrapportd\nf5\n",
            "pmset": " lowpowermode         1\n",
            "xattr": "a.dylib: com.apple.quarantine: 0083\nb.so: com.apple.quarantine: 0083\n",
        }
    )
    rows = dict(machine.surroundings(run))
    assert rows["owner of TCP port 49152"] == "rapportd"
    assert rows["Low Power Mode"] == "on"
    assert rows["quarantined files in `.venv`"] == "2"


def test_a_missing_command_is_stated():
    """Nothing is guessed where the system has no such command."""
    rows = dict(machine.surroundings(_printing({})))
    assert rows["Low Power Mode"] == "unknown"
    assert rows["quarantined files in `.venv`"].startswith("unknown")


@pytest.mark.parametrize(
    ("folder", "expected"), [("Documents/code", True), ("Desktop", True), ("code", False)]
)
def test_protected_folders_are_recognised(folder: str, expected: bool):
    """macOS protects Desktop, Documents and Downloads of the home folder."""
    home = Path("/Users/ada")
    assert machine.is_protected(home / folder, home) is expected


@pytest.mark.parametrize(
    ("stream", "ended"),
    [
        (b'data: {"type": "message_stop"}', "complete"),
        (b'data: {"type": "error", "error": {"type": "api_error"}}', "error event: api_error"),
        (b"event: ping", "cut: the stream ended without message_stop"),
    ],
)
def test_an_answer_says_how_it_ended(stream: bytes, ended: str):
    """A stream that ends early is not reported as complete."""
    delta = b'data: {"type": "message_delta", "usage": {"output_tokens": 7}}'
    answer = read_answer([delta, stream], "req_1")
    assert (answer.ended, answer.output_tokens) == (ended, 7)


class _Scripted(Commands):
    """Commands whose daemon is a number: installing with a changed setting gives another pid."""

    def __init__(self, *, restarts_always: bool = False) -> None:
        super().__init__(Path("/nowhere"), None)
        object.__setattr__(self, "calls", [])
        object.__setattr__(self, "pid", 0)
        object.__setattr__(self, "restarts_always", restarts_always)

    calls: list[str]
    pid: int
    restarts_always: bool

    def ctl(self, *arguments: str, extra: Mapping[str, str] | None = None) -> str:
        self.calls.append(" ".join(arguments))
        if arguments == ("service", "install") and (self.pid == 0 or extra or self.restarts_always):
            self.replace()
        if arguments == ("service", "uninstall"):
            object.__setattr__(self, "pid", None)
        return ""

    def replace(self) -> None:
        object.__setattr__(self, "pid", self.pid + 100)

    def status(self) -> dict[str, Any]:
        return {"pid": self.pid, "base_url": "http://127.0.0.1:1", "running_requests": 1}


class _Killed:
    """Records signals, and replaces the scripted daemon as launchd would."""

    def __init__(self, commands: _Scripted) -> None:
        self._commands = commands
        self.sent: list[tuple[int, int]] = []

    def __call__(self, pid: int, number: int) -> None:
        self.sent.append((pid, number))
        self._commands.replace()


def test_the_steps_under_launchd(monkeypatch: pytest.MonkeyPatch):
    """Install, install again, restart under load, kill, uninstall; each step has its row."""
    commands = _Scripted()
    killed = _Killed(commands)
    monkeypatch.setattr(os, "kill", killed)
    lines = launchd.exercise(commands, lambda: commands.pid)
    assert killed.sent == [(200, signal.SIGKILL)]
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "install, load, wait until ready",
        "install again changes nothing",
        "restart while an answer streams",
        "kill -9 of the daemon",
        "uninstall",
    ]
    assert commands.calls[-1] == "service uninstall"


def test_a_failed_step_is_named_and_the_agent_is_removed():
    """The message says which steps passed; no agent is left behind."""
    commands = _Scripted(restarts_always=True)
    with pytest.raises(CheckError, match=r"restarted the service\.\nSteps .* install, load"):
        launchd.exercise(commands, lambda: commands.pid)
    assert commands.calls[-1] == "service uninstall"


def test_another_pid_in_launchd_is_an_error():
    """The daemon that answers must be the one that launchd started."""
    with pytest.raises(CheckError, match="launchd names pid 1, but pid 100 answers"):
        launchd.exercise(_Scripted(), lambda: 1)


def test_launchd_is_skipped_where_it_cannot_or_must_not_run(tmp_path: Path):
    """Not on Linux, and not where the user has the service installed."""
    plist = tmp_path / "agent.plist"
    with pytest.raises(SkippedError, match="macOS only"):
        launchd.require_launchd("linux", plist)
    launchd.require_launchd("darwin", plist)
    plist.touch()
    with pytest.raises(SkippedError, match="service uninstall"):
        launchd.require_launchd("darwin", plist)


def test_sleep_is_skipped_without_a_person():
    """Nothing waits for a key that nobody presses."""
    with pytest.raises(SkippedError, match="needs a person"):
        measures.sleep_section(None, may_ask=False)


def test_sleep_is_the_difference_of_two_clocks():
    """The monotonic clock of macOS stands still during sleep, the wall clock does not."""
    before, after = measures.Moment(1000.0, 50.0), measures.Moment(1090.0, 80.0)
    assert before.asleep_seconds(after) == 60


def test_the_command_prints_the_chosen_sections(capsys: pytest.CaptureFixture[str]):
    """`--only` runs what it names; the home folder is masked."""
    assert command.main(["--only", "machine", "--only", "launchd", "--no-sleep"]) == 0
    report = capsys.readouterr().out
    assert "## Machine (done)" in report
    assert "## launchd (" in report
    assert "## Memory" not in report
    assert str(Path.home()) not in report


def test_a_model_folder_must_hold_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A wrong `--model` is refused before anything runs."""
    with pytest.raises(SystemExit) as error:
        command.main(["--model", str(tmp_path)])
    assert error.value.code == 2
    assert "there is no config.json" in capsys.readouterr().err
