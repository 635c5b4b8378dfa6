"""`anyclaudectl reload` and SIGHUP: what a running daemon applies, and what it refuses."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from anyclaude.control.v1 import control_pb2 as pb
from tests.integration.daemon_process import QUICK, SCRIPT, DaemonProcess
from tests.integration.service import WAIT_SECONDS

_LM_STUDIO = '[upstreams.mine]\nbase_url = "http://127.0.0.1:9"\n'


@pytest.fixture(scope="module")
def daemon() -> Iterator[DaemonProcess]:
    """A daemon that every test here leaves with the settings that it finds."""
    with DaemonProcess() as running:
        running.wait_ready()
        yield running


def _write(daemon: DaemonProcess, text: str) -> None:
    daemon.paths.config_file.write_text(text)


def _value(daemon: DaemonProcess, key: str) -> object:
    entries = daemon.stub("DaemonService").GetConfig(pb.GetConfigRequest()).entries
    return next(json.loads(entry.value_json) for entry in entries if entry.key == key)


def test_a_setting_of_the_worker_restarts_it_alone(daemon: DaemonProcess) -> None:
    """The worker starts with the new value; the front end keeps its process."""
    before = {worker.name: worker.generation for worker in daemon.status().workers}
    _write(daemon, "[cache]\nmax_prefixes = 3\n")

    trial = daemon.control("reload", "--dry-run", "--json")
    untouched = _value(daemon, "cache.max_prefixes")
    done = daemon.control("reload")
    again = daemon.control("reload")
    worker = daemon.wait_worker(pb.WORKER_STATE_READY, generation=before["mlx"] + 1)

    assert trial.json["restarted_workers"] == ["mlx"]
    assert untouched == 16
    assert done.stdout == "Applied cache.max_prefixes. Restarting mlx.\n"
    assert _value(daemon, "cache.max_prefixes") == 3
    assert daemon.worker("frontend").generation == before["frontend"]
    assert worker.generation > before["mlx"]
    assert again.stdout == "No setting has changed.\n"


def test_a_new_server_becomes_a_mode(daemon: DaemonProcess) -> None:
    """A server that the file adds is a mode after the reload, and gone after the next."""
    _write(daemon, _LM_STUDIO)
    daemon.control("reload")
    added = daemon.control("mode", "--json").json["modes"]
    _write(daemon, "")
    daemon.control("reload")
    removed = daemon.control("mode", "--json").json["modes"]

    assert "mine" in [mode["name"] for mode in added]
    assert "mine" not in [mode["name"] for mode in removed]


def test_what_a_new_daemon_applies_keeps_its_value(daemon: DaemonProcess) -> None:
    """The limits of the supervisor are named as pending, and stay as they are."""
    limit = _value(daemon, "supervisor.crash_limit")
    _write(daemon, "[supervisor]\ncrash_limit = 9\n[chooser]\nshow = false\n")

    done = daemon.control("reload")
    kept, shown = _value(daemon, "supervisor.crash_limit"), _value(daemon, "chooser.show")
    _write(daemon, "")
    daemon.control("reload")

    assert "Applied chooser.show." in done.stdout
    assert "supervisor.crash_limit: needs a new daemon" in done.stdout
    assert kept == limit
    assert shown is False


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[cache]\nmax_prefixes = 0\n", "cache.max_prefixes = 0"),
        ("[cahe]\nmax_prefixes = 1\n", "unknown key cahe"),
        ('[chooser]\nedit = "nonesuch"\n', "nonesuch"),
        ("mode =", "is not valid TOML"),
    ],
)
def test_settings_that_cannot_be_used_change_nothing(
    daemon: DaemonProcess, text: str, why: str
) -> None:
    """Exit 5 with the reason; values and processes stay."""
    before = daemon.status().workers
    _write(daemon, text)

    done = daemon.control("reload")
    _write(daemon, "")

    assert done.code == 5
    assert "Nothing was changed." in done.stderr
    assert why in done.stderr
    assert [w.generation for w in daemon.status().workers] == [w.generation for w in before]


def test_a_hangup_reloads(daemon: DaemonProcess) -> None:
    """SIGHUP does what `reload` does; invalid settings are logged and do not end the daemon."""
    generation = daemon.worker().generation
    _write(daemon, "[cache]\nmax_prefixes = 0\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.poll(lambda _: "settings not reloaded" in daemon.output)
    _write(daemon, "[cache]\nmax_prefixes = 5\n")
    daemon.process.send_signal(signal.SIGHUP)

    daemon.wait_worker(pb.WORKER_STATE_READY, generation=generation + 1)

    assert _value(daemon, "cache.max_prefixes") == 5
    _write(daemon, "")
    daemon.control("reload")


def test_a_hangup_ends_a_daemon_in_a_terminal() -> None:
    """A closed terminal ends what runs in it; otherwise the daemon would live on unseen."""
    with DaemonProcess() as other:
        environ = other.environ | QUICK
        other.wait_ready()
        other.stop()
        ours, theirs = pty.openpty()
        command = [sys.executable, str(SCRIPT), "routes.json", "ready"]
        with subprocess.Popen(
            command, cwd=other.home, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
        ) as process:
            os.close(theirs)
            other.wait_ready()
            process.send_signal(signal.SIGHUP)
            code = process.wait(WAIT_SECONDS)
        os.close(ours)

    assert code == 0
