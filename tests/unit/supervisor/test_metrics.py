"""The metrics of requests, and the pages that name them."""

import json
import re
from types import SimpleNamespace
from typing import Final

import pytest

from anyclaude.frontend.v1 import frontend_pb2
from anyclaude.supervisor.metrics import Metrics, Scrape
from anyclaude.supervisor.records import Record
from anyclaude.supervisor.supervisor import State
from anyclaude.worker.v1 import worker_pb2
from tests.checkout import ROOT

_PAGE: Final = (ROOT / "docs" / "metrics.md").read_text()
_DASHBOARD: Final = ROOT / "deploy" / "grafana" / "anyclaude.json"


def record(reused: int = 900, from_disk: int = 0, first: float = 0.3) -> Record:
    """A completed request of 1,000 prompt tokens; its answer took 2 s for 80 tokens."""
    made = frontend_pb2.RequestRecord(
        route="/v1/messages",
        mode="mlx-lm",
        status=200,
        outcome=frontend_pb2.OUTCOME_COMPLETED,
        reuse_cause=worker_pb2.REUSE_CAUSE_EXTENDED,
        usage=worker_pb2.Usage(
            input_tokens=1_000 - reused,
            cache_read_tokens=reused,
            disk_read_tokens=from_disk,
            output_tokens=80,
        ),
    )
    made.time_to_first_token.FromMilliseconds(round(1000 * first))
    made.duration.FromMilliseconds(round(1000 * first) + 2000)
    made.timings.queue.FromMilliseconds(40)
    made.timings.decode.FromMilliseconds(2000)
    return made


def scraped(*records: Record) -> tuple[dict[tuple[str, ...], float], str]:
    """The samples by name and label values, and the text, of a daemon with these requests."""
    child = SimpleNamespace(
        name="mlx", state=State.READY, supervisor=SimpleNamespace(restart_count=2)
    )
    metrics = Metrics([child], "0.1.0", ["mlx-lm"])  # type: ignore[list-item]
    for each in records:
        metrics.observe(each)
    worker = worker_pb2.GetStatusResponse(
        answer_repairs={"wrong_type": 1}, disk=worker_pb2.DiskStatus(bytes=5)
    )
    answer = metrics.read(Scrape("mlx-lm", ready=True, worker=worker))
    samples = {
        (each.name, *(each.labels[key] for key in sorted(each.labels))): each.value
        for each in answer.metrics
    }
    return samples, answer.text.decode()


def test_first_tokens_of_cold_warm_and_restored_requests_are_apart() -> None:
    """Each kind has a histogram of its own; a few shared first tokens do not make a prompt warm."""
    samples, _ = scraped(record(first=0.3), record(5, first=20.0), record(900, 900, first=1.0))
    name = "anyclaude_time_to_first_token_seconds_sum"
    found = {prefix: samples[name, "mlx-lm", prefix] for prefix in ("warm", "cold", "restored")}
    assert found == pytest.approx({"warm": 0.3, "cold": 20.0, "restored": 1.0})


def test_times_of_a_request() -> None:
    """Duration, queue and speed come from the record; a refused request has none of them."""
    refused = frontend_pb2.RequestRecord(
        route="/v1/messages", mode="mlx-lm", status=529, outcome=frontend_pb2.OUTCOME_FAILED
    )
    samples, _ = scraped(record(), refused)
    duration = "anyclaude_request_duration_seconds"
    assert samples[f"{duration}_sum", "mlx-lm", "completed"] == pytest.approx(2.3)
    assert (f"{duration}_sum", "mlx-lm", "failed") not in samples
    assert samples["anyclaude_queue_seconds_sum", "mlx-lm"] == pytest.approx(0.04)
    assert samples["anyclaude_tokens_per_second_sum", "mlx-lm"] == pytest.approx(40.0)
    assert samples["anyclaude_requests_total", "mlx-lm", "failed", "/v1/messages", "5xx"] == 1


def test_every_metric_has_a_row() -> None:
    """The page lists the exported metrics with type, labels and help text, and no others."""
    _, text = scraped(record())
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    labels = {
        name: set(re.findall(r'(\w+)="', line)) - {"le"}
        for line in text.splitlines()
        if not line.startswith("#")
        for name in types
        if re.match(rf"{name}(_bucket|_sum|_count)?[{{ ]", line)
    }
    helps = dict(re.findall(r"^# HELP (\w+) (.+)$", text, re.MULTILINE))
    rows = re.findall(r"^\| `(anyclaude_\w+)` \| (\w+) \| (.*?) \| (.+) \|$", _PAGE, re.MULTILINE)
    listed = {
        name: (kind, set(re.findall(r"`(\w+)`", words)), meaning)
        for name, kind, words, meaning in rows
    }
    assert listed == {name: (kind, labels[name], helps[name]) for name, kind in types.items()}


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    """Every query names exported samples, and groups by labels that they have."""
    _, text = scraped(record())
    dashboard = json.loads(_DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {name for query in queries for name in re.findall(r"anyclaude_\w+", query)}
    exported = set(re.findall(r"^(anyclaude_\w+)", text, re.MULTILINE))
    assert names <= exported
    for query in queries:
        (name,) = re.findall(r"anyclaude_\w+", query)
        wanted = {
            label for group in re.findall(r"by \((.*?)\)", query) for label in group.split(", ")
        }
        (line, *_) = re.findall(rf"^{name}\{{(.*)\}}", text, re.MULTILINE) or [""]
        assert wanted <= set(re.findall(r'(\w+)="', line)), query
