"""The control API of a real daemon, used as any client would use it."""

import json
import re
import time

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families

from anyclaude.cache.v1 import cache_pb2, cache_pb2_grpc
from anyclaude.control.v1 import control_pb2 as pb
from tests.integration.daemon_process import DaemonProcess
from tests.integration.service import WAIT_SECONDS


@pytest.fixture(scope="module")
def daemon():
    with DaemonProcess() as daemon:
        daemon.wait_ready()
        yield daemon


def error_info(error):
    """The ErrorInfo of a failed call, and its RetryInfo if it has one."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    details = rpc_status.from_call(error).details
    assert details[0].Unpack(info)
    assert info.domain == "anyclaude"
    return info, retry if len(details) > 1 and details[1].Unpack(retry) else None


def refused(method, request):
    with pytest.raises(grpc.RpcError) as caught:
        method(request)
    return caught.value


def test_status_tells_the_whole_state(daemon):
    """One response has mode, address, children, model and memory."""
    status = daemon.stub("DaemonService").GetStatus(pb.GetStatusRequest()).status
    assert status.pid == daemon.process.pid
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", status.base_url)
    assert [worker.name for worker in status.workers] == ["frontend", "mlx"]
    assert status.memory.cache_bytes == 300
    assert status.running_requests == 2
    assert status.home == str(daemon.home)


def test_config_names_each_origin(daemon):
    """Every key has its value as JSON and its origin."""
    answer = daemon.stub("DaemonService").GetConfig(pb.GetConfigRequest())
    entries = {entry.key: entry for entry in answer.entries}
    assert (entries["server.port"].value_json, entries["server.port"].origin) == (
        "0",
        "environment",
    )
    assert json.loads(entries["log.level"].value_json) == "info"
    assert entries["log.level"].origin == "default"
    assert answer.file == str(daemon.home / "config.toml")


def test_modes_say_which_can_be_used(daemon):
    """All known modes are listed; those without a worker say why."""
    answer = daemon.stub("ModeService").GetMode(pb.GetModeRequest())
    modes = {mode.name: mode for mode in answer.modes}
    assert answer.mode == "mlx-lm"
    assert modes["mlx-lm"].ready
    assert not modes["lmstudio"].ready
    assert "no relay worker" in modes["lmstudio"].reason


@pytest.mark.parametrize("word", ["local", "mlx", "mlx-textgen", "mlx-omni", "vllm-mlx"])
def test_historic_words_are_taken_with_a_warning(daemon, word):
    """A historic mode name works and returns a warning with the current one."""
    answer = daemon.stub("ModeService").SetMode(pb.SetModeRequest(mode=word))
    assert answer.mode == "mlx-lm"
    assert word in answer.warning


def test_an_unknown_mode_names_the_known_ones(daemon):
    """An unknown mode is INVALID_ARGUMENT with a suggestion."""
    error = refused(daemon.stub("ModeService").SetMode, pb.SetModeRequest(mode="mlx-lmm"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Did you mean mlx-lm?" in error.details()
    assert "openrouter" in error.details()
    assert error_info(error)[0].reason == "UNKNOWN_MODE"


def test_a_mode_without_a_worker_is_refused(daemon):
    """A mode without a worker is FAILED_PRECONDITION, and the mode stays."""
    modes = daemon.stub("ModeService")
    error = refused(modes.SetMode, pb.SetModeRequest(mode="claude"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_info(error)[0].reason == "MODE_NOT_READY"
    assert modes.GetMode(pb.GetModeRequest()).mode == "mlx-lm"


def test_an_unknown_worker_is_not_found(daemon):
    """An unknown worker is NOT_FOUND with the names of the known ones."""
    error = refused(
        daemon.stub("WorkerControlService").RestartWorker, pb.RestartWorkerRequest(name="gpu")
    )
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "frontend, mlx" in error.details()


def prune(session_id):
    request = cache_pb2.PruneCachesRequest()
    request.filter.session_id = session_id
    return request


def test_the_workers_own_error_comes_through_unchanged(daemon):
    """Code, message, reason, metadata and retry delay are the worker's."""
    error = refused(daemon.stub("CacheService").PruneCaches, prune("refused"))
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "scripted to refuse")
    info, retry = error_info(error)
    assert (info.reason, dict(info.metadata)) == ("SCRIPTED", {"cache": "any"})
    assert retry.retry_delay.seconds == 7


def test_a_worker_that_fails_is_named(daemon):
    """A fault in the worker's code is INTERNAL, and names the log."""
    error = refused(daemon.stub("CacheService").PruneCaches, prune("broken"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "scripted to fail" in error.details()
    assert error_info(error)[0].reason == "WORKER_FAILED"


def test_a_verb_that_the_worker_lacks_is_unimplemented(daemon):
    """The worker alone decides which verbs exist."""
    call = daemon.channel.unary_unary("/anyclaude.cache.v1.CacheService/InventCaches")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=WAIT_SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_slow_worker_is_reported_before_the_caller_gives_up(daemon):
    """The worker gets less time than the caller has, so that the error names the worker."""
    caches = cache_pb2_grpc.CacheServiceStub(daemon.channel)
    with pytest.raises(grpc.RpcError) as caught:
        caches.PruneCaches(prune("slow"), timeout=3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error_info(caught.value)[0].reason == "WORKER_BUSY"


def test_a_caller_that_leaves_cancels_the_call_in_the_worker():
    """Cancelling on the control socket reaches the worker's handler."""
    with DaemonProcess() as daemon:
        daemon.wait_ready()
        caches = daemon.stub("CacheService")
        call = cache_pb2_grpc.CacheServiceStub(daemon.channel).PruneCaches.future(prune("slow"))
        while not call.cancelled():
            # Once another call has been answered, this one is at the worker too.
            caches.ListCaches(cache_pb2.ListCachesRequest())
            call.cancel()
        deadline = time.monotonic() + WAIT_SECONDS
        while "cancelled" not in names(caches):
            assert time.monotonic() < deadline, "the worker's call goes on"


def names(caches):
    return {cache.name for cache in caches.ListCaches(cache_pb2.ListCachesRequest()).caches}


def test_a_worker_that_dies_in_a_call_is_down():
    """The call ends with UNAVAILABLE, WORKER_DOWN and a retry delay."""
    with DaemonProcess() as daemon:
        daemon.wait_ready()
        error = refused(daemon.stub("CacheService").PruneCaches, prune("deadly"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        info, retry = error_info(error)
        assert (info.reason, info.metadata["worker"]) == ("WORKER_DOWN", "mlx")
        assert retry.retry_delay.seconds >= 1


def test_pruning_is_a_dry_run_unless_forced():
    """Without force the named caches still exist afterwards."""
    with DaemonProcess() as daemon:
        daemon.wait_ready()
        caches = daemon.stub("CacheService")
        for force, left in [(False, 3), (True, 2)]:
            request = prune("s1")
            request.force = force
            answer = caches.PruneCaches(request)
            assert [cache.session_id for cache in answer.caches] == ["s1"]
            assert (answer.freed_bytes, answer.remaining_bytes) == (100, 200)
            assert len(names(caches)) == left


def test_caches_of_a_worker_that_is_down_are_unavailable():
    """UNAVAILABLE with the worker's state and a retry delay."""
    with DaemonProcess("hang") as daemon:
        daemon.wait_worker(pb.WORKER_STATE_READY, "frontend")
        stub = daemon.stub("CacheService")
        error = refused(stub.ListCaches, cache_pb2.ListCachesRequest())
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        info, retry = error_info(error)
        assert (info.reason, info.metadata["worker"]) == ("WORKER_DOWN", "mlx")
        assert retry.retry_delay.seconds >= 1
        error = refused(daemon.stub("ModeService").SetMode, pb.SetModeRequest(mode="mlx-lm"))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "starting" in error.details()


def test_the_mode_is_kept_across_a_restart():
    """The mode is saved; a flag or variable at the next start wins over it."""
    with DaemonProcess() as first:
        first.wait_ready()
        first.stub("ModeService").SetMode(pb.SetModeRequest(mode="mlx"))
        assert json.loads(first.paths.mode_file.read_text()) == {"mode": "mlx-lm"}
        assert first.stop() == 0
        with DaemonProcess(home=first.home) as second:
            assert second.wait_ready().mode == "mlx-lm"


def records_of(daemon):
    """Reads the records; the scripted front end sends one as soon as it is followed."""
    metrics = daemon.stub("MetricsService")
    deadline = time.monotonic() + WAIT_SECONDS
    while not (records := metrics.ListRequests(pb.ListRequestsRequest()).records):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return records


def test_request_records_reach_the_daemon(daemon):
    """A record of the front end is listed by the daemon."""
    assert [record.request_id for record in records_of(daemon)] == ["req_1"]


def test_metrics_count_what_happened(daemon):
    """One reading has requests, tokens, times, caches and workers, as text and as a list."""
    records_of(daemon)
    answer = daemon.stub("MetricsService").GetMetrics(pb.GetMetricsRequest())
    values = {
        (metric.name, *sorted(metric.labels.items())): metric.value for metric in answer.metrics
    }
    assert (
        values[
            (
                "anyclaude_requests_total",
                ("mode", "mlx-lm"),
                ("outcome", "completed"),
                ("route", "/v1/messages"),
                ("status", "2xx"),
            )
        ]
        == 1
    )
    assert values[("anyclaude_prefix_tokens_reused_total",)] == 90
    assert values[("anyclaude_prefix_tokens_computed_total",)] == 10
    assert values[("anyclaude_generation_tokens_total",)] == 7
    assert values[
        ("anyclaude_time_to_first_token_seconds_sum", ("mode", "mlx-lm"), ("prefix", "warm"))
    ] == pytest.approx(0.3)
    assert values[("anyclaude_cache_bytes",)] == 300
    assert values[("anyclaude_cache_entries",)] == 3
    assert values[("anyclaude_requests_running",)] == 2
    assert values[("anyclaude_ready", ("mode", "mlx-lm"))] == 1
    assert values[("anyclaude_worker_state", ("state", "ready"), ("worker", "mlx"))] == 1
    assert values[("anyclaude_worker_restarts_total", ("worker", "mlx"))] == 0
    text = answer.text.decode()
    families = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert families["anyclaude_requests"] == "counter"
    assert families["anyclaude_ready"] == "gauge"
    assert "session" not in text
    assert "_created" not in text


@pytest.mark.parametrize("service", ["", "frontend", "mlx"])
def test_health_answers_for_the_daemon_and_each_child(daemon, service):
    """The standard health check works with standard tools."""
    stub = health_pb2_grpc.HealthStub(daemon.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_every_service(daemon):
    """Reflection lists every service, so grpcurl needs no proto files."""
    services = ProtoReflectionDescriptorDatabase(daemon.channel).get_services()
    own = {s for s in services if s.startswith("anyclaude.")}
    assert own == {
        "anyclaude.cache.v1.CacheService",
        "anyclaude.control.v1.DaemonService",
        "anyclaude.control.v1.ModeService",
        "anyclaude.control.v1.WorkerControlService",
        "anyclaude.control.v1.MetricsService",
    }
    assert "grpc.health.v1.Health" in services


def test_shutdown_answers_and_then_stops():
    """The caller gets a response; then the daemon ends as by SIGTERM."""
    with DaemonProcess() as daemon:
        daemon.wait_ready()
        watch = daemon.stub("DaemonService").WatchStatus(pb.WatchStatusRequest())
        next(watch)
        daemon.stub("DaemonService").Shutdown(pb.ShutdownRequest())
        assert daemon.process.wait(WAIT_SECONDS) == 0
        assert daemon.sockets() == []
        assert "Traceback" not in daemon.output
        list(watch)
