"""Prometheus metrics, in one registry of the daemon, so they survive every restart of a child.

The number of labels is bounded: no session, model or path from a client becomes a label.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from google.protobuf.duration_pb2 import Duration
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from anyclaude.control.v1 import control_pb2
from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.messages.enum_words import enum_word
from anyclaude.messages.reuse import prefix_of
from anyclaude.supervisor.child import SupervisedChild
from anyclaude.supervisor.records import Record
from anyclaude.supervisor.speeds import tokens_per_second
from anyclaude.supervisor.supervisor import State
from anyclaude.worker.v1 import worker_pb2

# Seconds. Local prefill of 100,000 tokens takes minutes, and a long answer tens of them.
_FIRST_TOKEN: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
_DURATION: Final = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_QUEUE: Final = (0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKENS_PER_SECOND: Final = (1, 2, 5, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 400)
OTHER: Final = "other"
_ROUTES: Final = frozenset(
    {
        "/",
        "/api/hello",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/models",
    }
)


@dataclass(frozen=True)
class Scrape:
    """What one reading needs from other parts of the daemon."""

    mode: str
    ready: bool
    worker: worker_pb2.GetStatusResponse | None


class Metrics:
    def __init__(
        self, children: Iterable[SupervisedChild], version: str, modes: Collection[str]
    ) -> None:
        self._modes = modes
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry(auto_describe=False)
        self._live = _Live(children, version)
        self._registry.register(self._live)
        counter = partial(Counter, registry=self._registry)
        labels = ("route", "mode", "status", "outcome")
        self._requests = counter("anyclaude_requests", "HTTP requests that ended.", labels)
        histogram = partial(Histogram, registry=self._registry)
        self._first_token = histogram(
            "anyclaude_time_to_first_token_seconds",
            "From the head of a request to its first content event.",
            ("mode", "prefix"),
            buckets=_FIRST_TOKEN,
        )
        self._duration = histogram(
            "anyclaude_request_duration_seconds",
            "From the head of a request to the end of its response.",
            ("mode", "outcome"),
            buckets=_DURATION,
        )
        self._queue = histogram(
            "anyclaude_queue_seconds",
            "How long a request waited in the worker for its start.",
            ("mode",),
            buckets=_QUEUE,
        )
        self._speed = histogram(
            "anyclaude_tokens_per_second",
            "Speed of answers of at least eight tokens, after their first.",
            ("mode",),
            buckets=_TOKENS_PER_SECOND,
        )
        self._reused = counter(
            "anyclaude_prefix_tokens_reused", "Prompt tokens reused from a cache."
        )
        self._computed = counter(
            "anyclaude_prefix_tokens_computed", "Prompt tokens that had to be computed."
        )
        causes = "Requests by the cause that no more of their prompt was reused."
        self._causes = counter("anyclaude_prefix_reuse_causes", causes, ("cause",))
        # Counts requests without an explanation; created now, so that it is shown as 0.
        self._causes.labels(_cause(worker_pb2.REUSE_CAUSE_UNKNOWN))
        self._generated = counter("anyclaude_generation_tokens", "Tokens generated.")
        self._continued = counter(
            "anyclaude_requests_continued",
            "Requests that were answered although their worker ended before the answer did.",
        )
        self._replayed = counter(
            "anyclaude_replayed_tokens",
            "Generated tokens that were given to the next worker, which continued the answer.",
        )
        self._dropped = counter(
            "anyclaude_records_dropped", "Request records lost before they were counted."
        )

    def observe(self, record: Record) -> None:
        mode = record.mode if record.mode in self._modes else OTHER
        outcome = enum_word(frontend_pb2.Outcome.DESCRIPTOR, record.outcome)
        status = f"{record.status // 100}xx" if record.status else "none"
        self._requests.labels(_route(record.route), mode, status, outcome).inc()
        self._observe_times(record, mode, outcome)
        if record.reuse_cause:
            self._causes.labels(_cause(record.reuse_cause)).inc()
        usage = record.usage
        self._reused.inc(usage.cache_read_tokens)
        self._computed.inc(usage.input_tokens + usage.cache_creation_tokens)
        self._generated.inc(usage.output_tokens)
        is_complete = record.outcome == frontend_pb2.OUTCOME_COMPLETED
        went_on = record.worker_deaths > 0 or record.replayed_tokens > 0
        self._continued.inc(is_complete and went_on)
        self._replayed.inc(record.replayed_tokens)

    def _observe_times(self, record: Record, mode: str, outcome: str) -> None:
        if not record.HasField("usage"):
            # It was refused, or only its tokens were counted.
            return
        self._duration.labels(mode, outcome).observe(_seconds(record.duration))
        if record.HasField("time_to_first_token"):
            prefix = prefix_of(record.usage).value
            self._first_token.labels(mode, prefix).observe(_seconds(record.time_to_first_token))
        if record.timings.HasField("queue"):
            self._queue.labels(mode).observe(_seconds(record.timings.queue))
        if (speed := tokens_per_second(record)) is not None:
            self._speed.labels(mode).observe(speed)

    def drop(self, records: int) -> None:
        self._dropped.inc(records)

    def read(self, scrape: Scrape) -> control_pb2.GetMetricsResponse:
        self._live.scrape = scrape
        return control_pb2.GetMetricsResponse(
            text=generate_latest(self._registry),
            metrics=[
                control_pb2.Metric(name=sample.name, labels=sample.labels, value=sample.value)
                for family in self._registry.collect()
                for sample in family.samples
            ],
        )


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9


def _cause(cause: worker_pb2.ReuseCause) -> str:
    return enum_word(worker_pb2.ReuseCause.DESCRIPTOR, cause)


def _route(path: str) -> str:
    if path.startswith("/v1/models/"):
        return "/v1/models"
    return path if path in _ROUTES else OTHER


class _Live(Collector):
    """Values computed from the current state at each reading."""

    def __init__(self, children: Iterable[SupervisedChild], version: str) -> None:
        self._children = children
        self._version = version
        self.scrape = Scrape(mode="", ready=False, worker=None)

    def collect(self) -> Iterator[Metric]:
        yield _gauge("anyclaude_build_info", "The running version.", 1, version=self._version)
        yield _gauge(
            "anyclaude_ready",
            "1 while the current mode answers requests.",
            self.scrape.ready,
            mode=self.scrape.mode,
        )
        yield from self._of_children()
        if self.scrape.worker is not None:
            yield from _of_worker(self.scrape.worker)

    def _of_children(self) -> Iterator[Metric]:
        states = GaugeMetricFamily(
            "anyclaude_worker_state",
            "1 for the state that the process is in, 0 for the others.",
            labels=("worker", "state"),
        )
        restarts = CounterMetricFamily(
            "anyclaude_worker_restarts", "Starts of a process after its first.", labels=("worker",)
        )
        for child in self._children:
            for state in State:
                states.add_metric((child.name, state.value), child.state is state)
            restarts.add_metric((child.name,), child.supervisor.restart_count)
        yield states
        yield restarts


def _of_worker(status: worker_pb2.GetStatusResponse) -> Iterator[Metric]:
    memory, totals = status.memory, status.totals
    pressure = max(0, memory.pressure - worker_pb2.MEMORY_PRESSURE_NORMAL)
    for name, help_, value in (
        ("requests_running", "Requests that the MLX worker works on.", status.running_requests),
        ("requests_waiting", "Requests that wait in the MLX worker.", status.queued_requests),
        ("cache_bytes", "Bytes of the KV caches in memory.", memory.cache_bytes),
        ("cache_limit_bytes", "Bytes that KV caches may use in memory.", memory.cache_limit_bytes),
        ("cache_entries", "Conversations and stable prefixes in the cache.", status.caches),
        ("memory_active_bytes", "Bytes of MLX arrays.", memory.active_bytes),
        ("memory_peak_bytes", "The most that MLX arrays have used.", memory.peak_bytes),
        ("memory_weights_bytes", "Bytes of the weights of the model.", memory.weights_bytes),
        (
            "memory_available_bytes",
            "Memory that is available on the machine.",
            memory.available_bytes,
        ),
        ("memory_footprint_bytes", "Memory of the MLX worker process.", memory.footprint_bytes),
        ("memory_pressure", "Memory pressure: 0 normal, 1 warning, 2 critical.", pressure),
    ):
        yield _gauge(f"anyclaude_{name}", help_, value)
    for name, help_, value in (
        (
            "ahead_computed_tokens",
            "Prompt tokens that were computed ahead.",
            totals.ahead_computed_tokens,
        ),
        ("ahead_used_tokens", "Tokens computed ahead that were reused.", totals.ahead_used_tokens),
        ("ahead_given_up", "Times that computing ahead was given up.", totals.ahead_given_up),
        ("decode_passes", "Passes of the model that generated tokens.", totals.decode_passes),
        ("drafted_tokens", "Drafts that passes of the model verified.", totals.drafted_tokens),
        ("accepted_tokens", "Drafts that were accepted.", totals.accepted_tokens),
        (
            "shared_passes",
            "Passes of the model that several answers shared.",
            status.batch.passes,
        ),
        ("shared_tokens", "Tokens of passes that several answers shared.", status.batch.tokens),
        (
            "memory_refused_requests",
            "Requests that did not fit into memory.",
            memory.refused_requests,
        ),
    ):
        yield CounterMetricFamily(f"anyclaude_{name}", help_, value)
    repairs = CounterMetricFamily(
        "anyclaude_answer_repairs",
        "What was repaired, failed or was ended in answers.",
        labels=("kind",),
    )
    for kind, count in sorted(status.answer_repairs.items()):
        repairs.add_metric((kind,), count)
    yield repairs
    if status.HasField("disk"):
        yield from _of_disk(status.disk)


def _of_disk(disk: worker_pb2.DiskStatus) -> Iterator[Metric]:
    for name, help_, value in (
        ("bytes", "Bytes of the KV caches on disk.", disk.bytes),
        ("limit_bytes", "Bytes that KV caches may use on disk.", disk.budget_bytes),
        (
            "other_versions",
            "Records of format versions that are not read.",
            disk.other_version_records,
        ),
    ):
        yield _gauge(f"anyclaude_disk_{name}", help_, value)
    for name, help_, value in (
        ("failed_writes", "Writes of records that failed.", disk.failed_writes),
        (
            "skipped_writes",
            "Segments that were not written to disk.",
            disk.skipped_writes,
        ),
        ("quarantined", "Records that were found to be corrupt.", disk.quarantined_records),
        ("damaged_answers", "Damaged files of kept answers.", disk.damaged_answers),
    ):
        yield CounterMetricFamily(f"anyclaude_disk_{name}", help_, value)


def _gauge(name: str, help_: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, help_, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), value)
    return family
