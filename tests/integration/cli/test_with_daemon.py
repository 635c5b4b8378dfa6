"""`anyclaudectl` against a real daemon whose children are scripted."""

import json
from collections.abc import Iterator

import pytest

from tests.integration.daemon_process import DaemonProcess
from tests.integration.service import WAIT_SECONDS


@pytest.fixture(scope="module")
def daemon() -> Iterator[DaemonProcess]:
    """One ready daemon for the tests that leave it as it was."""
    with DaemonProcess() as daemon:
        assert daemon.control("wait", "--ready", "--timeout", str(WAIT_SECONDS)).code == 0
        yield daemon


def test_status_is_the_daemons(daemon: DaemonProcess) -> None:
    """The document has this daemon's pid, address, workers and the worker's model."""
    done = daemon.control("status", "--json")
    document = done.json

    assert done.code == 0
    assert document["pid"] == daemon.process.pid
    assert document["readiness"] == "ready"
    assert document["base_url"].startswith("http://127.0.0.1:")
    assert [worker["name"] for worker in document["workers"]] == ["frontend", "mlx"]
    assert document["model"]["id"] == "scripted"
    assert document["running_requests"] == 2


def test_exit_codes_of_the_daemons_refusals(daemon: DaemonProcess) -> None:
    """Refusals exit with 1, 2, 4 or 5, each with its reason."""
    for code, *arguments in (
        (1, "cache", "prune", "--session", "broken"),
        (2, "mode", "warp"),
        (4, "worker", "restart", "nobody"),
        (4, "cache", "show", "lineages/nobody/main"),
        (5, "mode", "lmstudio"),
    ):
        done = daemon.control(*map(str, arguments))
        assert done.code == code, (arguments, done.stderr)
        assert done.stderr.strip()
        assert "Traceback" not in done.stderr


def test_mode_takes_an_older_word(daemon: DaemonProcess) -> None:
    """A historic name switches, and the warning is on standard error."""
    done = daemon.control("mode", "local", "--json")

    assert done.json["mode"] == "mlx-lm"
    assert "old name" in done.stderr


def test_caches_and_a_dry_run(daemon: DaemonProcess) -> None:
    """The worker's caches are listed, and a dry run removes nothing."""
    listed = daemon.control("cache", "list", "--json").json
    dry = daemon.control("cache", "prune", "--session", "s1", "--json").json
    again = daemon.control("cache", "list", "--json").json

    assert len(listed["caches"]) == len(again["caches"]) == 3
    assert (dry["dry_run"], dry["freed_bytes"]) == (True, 100)


def test_requests_metrics_and_config(daemon: DaemonProcess) -> None:
    """Records, metrics and settings are passed on whole."""
    requests = daemon.control("requests", "--json").json["requests"]
    metrics = daemon.control("metrics", "--json").json["metrics"]
    config = daemon.control("config", "--json").json

    assert requests[0]["usage"]["cache_read_tokens"] == 90
    assert requests[0]["time_to_first_token"] == 0.3
    assert "anyclaude_build_info" in {metric["name"] for metric in metrics}
    assert config["source"] == "daemon"
    port = next(entry for entry in config["entries"] if entry["key"] == "server.port")
    assert (port["value"], port["origin"]) == (0, "environment")


def test_logs_outlive_the_daemon_and_shutdown_ends_it() -> None:
    """After `shutdown` status exits with 3, and `logs` still works."""
    with DaemonProcess() as daemon:
        daemon.control("wait", "--ready")
        restarted = daemon.control("worker", "restart", "mlx", "--json").json
        stopped = daemon.control("shutdown")
        exit_code = daemon.process.wait(WAIT_SECONDS)
        status, logs = daemon.control("status"), daemon.control("logs", "--json")

    assert restarted["worker"]["name"] == "mlx"
    assert stopped.code == 0
    assert exit_code == 0
    assert status.code == 3
    events = [json.loads(line)["event"] for line in logs.stdout.splitlines()]
    assert "anyclauded stopped" in events


def test_fatal_worker_is_degraded() -> None:
    """After a worker's permanent failure status exits with 7, and a wait ends at once."""
    with DaemonProcess("exit 69") as daemon:
        waited = daemon.control("wait", "--ready", "--timeout", str(WAIT_SECONDS))
        status = daemon.control("status")
        assert daemon.stop() == 0

    assert waited.code == status.code == 7
    assert "scripted to leave with 69" in status.stdout
