"""`anyclauded` as a process: its life, its children, and a second daemon beside it."""

import json
import os
import signal
import socket
import stat
import subprocess

import httpx
import psutil
import pytest

from anyclaude.control.v1 import control_pb2 as pb
from tests.integration.daemon_process import DaemonProcess
from tests.integration.service import WAIT_SECONDS, wait_ended


def test_a_daemon_becomes_ready_and_stops_cleanly():
    """SIGTERM ends everything: exit 0, no child, no socket file."""
    with DaemonProcess() as daemon:
        status = daemon.wait_ready()
        children = daemon.children()
        assert len(children) == 2
        assert status.mode == "mlx-lm"
        assert status.model.id == "scripted"
        assert not status.problems
        assert daemon.stop() == 0
        assert daemon.sockets() == []
        assert not any(child.is_running() for child in children)


SECRETS = {"ANTHROPIC_API_KEY": "k", "OPENROUTER_API_KEY": "k", "HTTPS_PROXY": "http://p"}


@pytest.fixture(scope="module")
def running():
    """A daemon with secrets in its environment, ready again after each test."""
    with DaemonProcess(**SECRETS) as daemon:
        yield daemon


@pytest.fixture
def daemon(running):
    """The running daemon, ready before and after the test."""
    running.wait_ready()
    yield running
    running.wait_ready()


def test_what_the_daemon_writes_is_private(daemon):
    """Only the owner can use the control socket and read the log file."""
    assert stat.S_IMODE(daemon.paths.control_socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(daemon.paths.log_file.stat().st_mode) == 0o600
    lines = daemon.paths.log_file.read_text().splitlines()
    assert "anyclauded started" in [json.loads(line)["event"] for line in lines]


def test_no_child_outlives_a_killed_daemon():
    """Soon after SIGKILL of the daemon no child is left."""
    with DaemonProcess() as daemon:
        daemon.wait_ready()
        children = daemon.children()
        daemon.process.kill()
        assert wait_ended(children, 10) == []


def test_a_daemon_after_a_killed_one_starts_on_fresh_sockets():
    """Stale sockets are removed, and no new child uses a path that an ending one may remove."""
    with DaemonProcess() as first:
        first.wait_ready()
        first.process.kill()
        first.process.wait()
        assert first.sockets() != []
        with DaemonProcess(home=first.home) as second:
            second.wait_ready()
            assert second.sockets() == ["ctl.sock", "frontend-2.sock", "mlx-2.sock"]
            assert second.stop() == 0


def test_a_second_daemon_is_refused_and_harms_nothing():
    """It exits with 1 naming the owner's pid; the first still responds."""
    with DaemonProcess() as first:
        first.wait_ready()
        before = first.sockets()
        with DaemonProcess(home=first.home) as second:
            assert second.process.wait(WAIT_SECONDS) == 1
            assert f"already runs with pid {first.process.pid}" in second.output
        assert first.sockets() == before
        assert first.stub("DaemonService").GetStatus(pb.GetStatusRequest()).status.pid == (
            first.process.pid
        )


def test_a_taken_port_names_its_owner():
    """Exit 1 with pid and command of the port's owner, and how to choose another port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with DaemonProcess(ANYCLAUDE_PORT=str(port)) as daemon:
            assert daemon.process.wait(WAIT_SECONDS) == 1
            assert f"port {port}: it is taken by pid {os.getpid()} (" in daemon.output
            assert "--port" in daemon.output


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"ANYCLAUDE__SERVER__PROT": "1"}, "Did you mean server.port?"),
        ({"ANYCLAUDE_MODE": "lmstudo"}, "Did you mean lmstudio?"),
        (
            {"ANYCLAUDE_MODE": "bare", "ANYCLAUDE__UPSTREAMS__BARE__MODEL": "m"},
            "Set upstreams.bare.base_url",
        ),
    ],
)
def test_a_config_that_cannot_be_used_exits_78(environ, said):
    """An invalid setting is reported on stderr, and nothing is started."""
    with DaemonProcess(**environ) as daemon:
        assert daemon.process.wait(WAIT_SECONDS) == 78
        assert said in daemon.output
        assert "Traceback" not in daemon.output
        assert not daemon.paths.run.exists()


def test_an_unsafe_folder_is_refused():
    """A run folder that is a link ends the start with exit 1 and what to do."""
    with DaemonProcess("ready", "--version") as first:
        assert first.process.wait(WAIT_SECONDS) == 0
        (first.home / "run").symlink_to("/tmp")
        with DaemonProcess(home=first.home) as daemon:
            assert daemon.process.wait(WAIT_SECONDS) == 1
            assert "is a link or belongs to another user" in daemon.output


def test_a_killed_worker_comes_back_by_itself(daemon):
    """After SIGKILL the worker is ready again in a new generation, on a new socket."""
    old = daemon.worker()
    os.kill(old.pid, signal.SIGKILL)
    new = daemon.wait_worker(pb.WORKER_STATE_READY, generation=old.generation + 1)
    daemon.wait_ready()
    assert (new.restart_count, new.last_exit.signal) == (old.restart_count + 1, "SIGKILL")
    assert f"mlx-{old.generation}.sock" not in daemon.sockets()
    routes = json.loads(daemon.routes_file.read_text())["routes"]
    assert routes[0]["worker_socket"].endswith(f"mlx-{new.generation}.sock")
    assert routes[0]["state"] == "ROUTE_STATE_READY"


def test_a_killed_front_end_gets_its_routes_again(daemon):
    """A new front end gets the routes although nothing else has changed."""
    before = int(json.loads(daemon.routes_file.read_text())["version"])
    old = daemon.worker("frontend")
    os.kill(old.pid, signal.SIGKILL)
    daemon.wait_worker(pb.WORKER_STATE_READY, "frontend", generation=old.generation + 1)
    daemon.wait_ready()
    assert int(json.loads(daemon.routes_file.read_text())["version"]) > before


def test_clients_get_529_when_the_front_end_gave_up():
    """Requests get a 529 with the reason until the front end is restarted."""
    with DaemonProcess("ready", "--version") as first:
        first.process.wait(WAIT_SECONDS)
        (first.home / "no-frontend").touch()
        with DaemonProcess(home=first.home) as daemon:
            daemon.wait_worker(pb.WORKER_STATE_FATAL, "frontend")
            base_url = daemon.wait_for(lambda _: True).base_url
            answer = httpx.post(f"{base_url}/v1/messages", content=b"x" * 1_000_000)
            assert answer.status_code == 529
            assert answer.json()["error"]["type"] == "overloaded_error"
            assert "scripted to have no front end" in answer.json()["error"]["message"]
            (first.home / "no-frontend").unlink()
            daemon.stub("WorkerControlService").RestartWorker(
                pb.RestartWorkerRequest(name="frontend")
            )
            daemon.wait_ready()
            assert daemon.stop() == 0


def test_a_signal_to_the_whole_group_is_one_clean_stop():
    """A signal to every process stops cleanly: nothing restarts, exit 0."""
    with DaemonProcess() as daemon:
        daemon.wait_ready()
        for child in daemon.children():
            child.terminate()
        daemon.process.terminate()
        daemon.process.terminate()
        assert daemon.process.wait(WAIT_SECONDS) == 0
        assert daemon.sockets() == []
        assert '"generation": 2' not in daemon.output


def test_a_crash_loop_is_given_up_and_explained():
    """Five deaths end in FATAL; the daemon runs on, and status says why and what to do."""
    with DaemonProcess("exit 1") as daemon:
        worker = daemon.wait_worker(pb.WORKER_STATE_FATAL)
        assert worker.generation == 5
        assert worker.last_exit.code == 1
        assert worker.last_exit.reason == "scripted to leave with 1"
        assert "raw words of a dying process" in worker.last_exit.stderr_tail
        status = daemon.stub("DaemonService").GetStatus(pb.GetStatusRequest()).status
        assert status.readiness == pb.READINESS_DEGRADED
        assert "anyclaudectl worker restart mlx" in status.problems[0]
        assert daemon.stop() == 0


def test_the_front_end_learns_that_a_worker_gave_up():
    """The route becomes UNAVAILABLE with the worker's reason."""
    with DaemonProcess("exit 69") as daemon:
        daemon.wait_worker(pb.WORKER_STATE_FATAL)
        daemon.wait_worker(pb.WORKER_STATE_READY, "frontend")
        # The push that follows is seen by its file alone.
        route = wait_for_route(daemon, "ROUTE_STATE_UNAVAILABLE")
        assert "scripted to leave with 69" in route["reason"]


def test_a_worker_that_is_short_of_memory_is_never_given_up():
    """It starts more often than the crash limit allows, and requests are asked to come back."""
    with DaemonProcess("exit 71") as daemon:
        daemon.wait_worker(pb.WORKER_STATE_BACKOFF, generation=6)
        daemon.wait_worker(pb.WORKER_STATE_READY, "frontend")
        route = wait_for_route(daemon, "ROUTE_STATE_STARTING")
        assert "retry_after" in route
        status = daemon.wait_for(lambda s: any("waits for memory" in p for p in s.problems))
        assert "scripted to leave with 71" in status.problems[0]


def wait_for_route(daemon, state):
    def pushed(_):
        if not daemon.routes_file.exists():
            return False
        return json.loads(daemon.routes_file.read_text())["routes"][0]["state"] == state

    daemon.wait_for(pushed)
    return json.loads(daemon.routes_file.read_text())["routes"][0]


def test_a_permanent_error_is_not_retried():
    """Exit 78 is FATAL after one start."""
    with DaemonProcess("exit 78") as daemon:
        assert daemon.wait_worker(pb.WORKER_STATE_FATAL).generation == 1


def test_a_restart_clears_fatal():
    """RestartWorker starts a worker again that the supervisor had given up."""
    with DaemonProcess("exit 78") as daemon:
        daemon.wait_worker(pb.WORKER_STATE_FATAL)
        answer = daemon.stub("WorkerControlService").RestartWorker(
            pb.RestartWorkerRequest(name="mlx")
        )
        assert answer.worker.state == pb.WORKER_STATE_STARTING
        assert daemon.wait_worker(pb.WORKER_STATE_FATAL, generation=2).generation == 2


def test_a_start_that_hangs_is_ended_with_its_stack():
    """After the start timeout the worker is aborted, and its stack is in the log's tail."""
    with DaemonProcess(
        "hang",
        ANYCLAUDE__SUPERVISOR__START_TIMEOUT_SECONDS="2",
        ANYCLAUDE__SUPERVISOR__CRASH_LIMIT="1",
    ) as daemon:
        exit_ = daemon.wait_worker(pb.WORKER_STATE_FATAL).last_exit
        assert exit_.reason == "not ready within 2 s"
        assert exit_.signal == "SIGABRT"
        assert "Fatal Python error: Aborted" in exit_.stderr_tail
        assert "most recent call first" in exit_.stderr_tail


def test_a_worker_that_ignores_sigterm_is_killed():
    """A worker that ignores SIGTERM is killed after stop_timeout_seconds; exit 0."""
    with DaemonProcess("deaf", ANYCLAUDE__SUPERVISOR__STOP_TIMEOUT_SECONDS="0.5") as daemon:
        daemon.wait_ready()
        children = daemon.children()
        assert daemon.stop() == 0
        assert not any(child.is_running() for child in children)


def test_a_second_signal_forces_the_stop():
    """A second SIGINT ends the daemon at once with exit 1."""
    with DaemonProcess("deaf", ANYCLAUDE__SUPERVISOR__STOP_TIMEOUT_SECONDS="600") as daemon:
        daemon.wait_ready()
        daemon.process.send_signal(signal.SIGINT)
        daemon.wait_worker(pb.WORKER_STATE_STOPPING)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(0.5)
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.process.wait(WAIT_SECONDS) == 1
        assert daemon.sockets() == []


def test_ctrl_c_is_for_the_daemon_alone():
    """A child ignores the terminal's SIGINT, since the daemon stops it."""
    with DaemonProcess() as daemon:
        daemon.wait_ready()
        before = {worker.name: worker.pid for worker in daemon.status().workers}
        for child in daemon.children():
            child.send_signal(signal.SIGINT)
        workers = daemon.stub("WorkerControlService").ListWorkers(pb.ListWorkersRequest()).workers
        assert {worker.state for worker in workers} == {pb.WORKER_STATE_READY}
        assert {worker.name: worker.pid for worker in workers} == before
        assert daemon.stop() == 0


def test_children_inherit_no_keys_and_no_proxies(daemon):
    """A child gets only the variables it needs and a private TMPDIR."""
    environ = psutil.Process(daemon.worker().pid).environ()
    assert not SECRETS.keys() & environ.keys()
    assert environ["TMPDIR"] == str(daemon.paths.worker_tmp)
    assert stat.S_IMODE(daemon.paths.worker_tmp.stat().st_mode) == 0o700
    assert environ["HF_HUB_OFFLINE"] == "1"
