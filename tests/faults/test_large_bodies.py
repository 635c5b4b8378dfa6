"""Request bodies that are far too large for the model, and small requests beside them."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import httpx
import psutil
import pytest

from tests.figures import FIGURES, RecordProperty
from tests.integration.conversation import body
from tests.integration.service import Service
from tests.models.requests import user

_MB: Final = 1_000_000
_LARGE_BYTES: Final = 30 * _MB
# A machine that runs other tests takes several times as long as an idle one.
_ANSWER_SECONDS: Final = 60.0
_GROWTH_BYTES: Final = 200 * _MB
# Of the front end, for ten bodies: what a machine without other work takes to refuse them.
_PROCESSOR_SECONDS: Final = 2.0
# A small request that waits in line sees up to nine large ones go first.
_MOST_OVERTAKEN: Final = 5


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service.ready()


@pytest.fixture(scope="module")
def large() -> bytes:
    """A body of 30 MB of ordinary text."""
    text = "the quick brown fox jumps over 13 dogs. "
    return json.dumps(body(user(text * (_LARGE_BYTES // len(text))))).encode()


class Peaks:
    """The highest memory of each process of the service while the block runs."""

    def __init__(self, service: Service) -> None:
        self._processes = [psutil.Process(service.process.pid), *service.children()]
        self._before = self._now()
        self._peak = dict(self._before)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Peaks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def growth(self) -> list[int]:
        return [self._peak[process] - self._before[process] for process in self._processes]

    def _now(self) -> dict[psutil.Process, int]:
        return {process: process.memory_info().rss for process in self._processes}

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            for process, now in self._now().items():
                self._peak[process] = max(self._peak[process], now)


def _send(service: Service, content: bytes) -> tuple[int, float]:
    began = time.monotonic()
    with service.http() as http:
        response = http.post("/v1/messages", content=content)
    return response.status_code, time.monotonic() - began


def _small(http: httpx.Client) -> float:
    began = time.monotonic()
    request = body(user("Say hello."), max_tokens=3)
    assert http.post("/v1/messages", json=request).status_code == 200
    return time.monotonic() - began


def _count_done(sent: Sequence[Future[tuple[int, float]]]) -> int:
    return sum(one.done() for one in sent)


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def test_ten_large_bodies_cost_bounded_memory_and_no_one_elses_time(
    service: Service, large: bytes, record_property: RecordProperty
) -> None:
    """All are refused, no process grows by more than 200 MB, and none delays a small request.

    A busy machine delays everything, so time is compared in seconds of the processor and in the
    number of large bodies that are refused while a small request is answered.
    """
    front = psutil.Process(service.worker("frontend").pid)
    with service.http() as http:
        alone = sorted(_small(http) for _ in range(10))[5]
        began = _processor_seconds(front)
        with Peaks(service) as peaks, ThreadPoolExecutor(10) as pool:
            sent = [pool.submit(_send, service, large) for _ in range(10)]
            beside, overtaken = [], []
            while (done := _count_done(sent)) < len(sent):
                beside.append(_small(http))
                overtaken.append(_count_done(sent) - done)
        used_seconds = _processor_seconds(front) - began
    results = [one.result() for one in sent]
    assert max(overtaken) < _MOST_OVERTAKEN
    assert used_seconds < _PROCESSOR_SECONDS
    assert {status for status, _ in results} <= {400, 413}
    assert max(seconds for _, seconds in results) < _ANSWER_SECONDS
    assert max(peaks.growth) < _GROWTH_BYTES
    slowest = max(seconds for _, seconds in results)
    shared = sorted(beside)[len(beside) // 2]
    record_property(
        FIGURES,
        f"ten bodies of 30 MB: refused within {slowest:.1f} s, a process grew by at most "
        f"{max(peaks.growth) / _MB:.0f} MB; a small request took {alone * 1000:.0f} ms alone and "
        f"{shared * 1000:.0f} ms beside them (median of {len(beside)}); the front end used "
        f"{used_seconds:.1f} s of the processor",
    )


def test_a_prompt_that_may_fit_is_measured_before_it_is_rendered(service: Service) -> None:
    """A prompt below the certain bound is refused all the same, with an estimate of its tokens."""
    text = "a b c d e f g h " * 125_000
    status = service.status().model
    assert len(text) < status.longest_token_characters * status.context_window_tokens
    with service.http() as http:
        response = http.post("/v1/messages", json=body(user(text)))
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert message.startswith("prompt is too long: ")
    tokens = int(message.split()[4])
    assert 0.5 < tokens / http_tokens(text) < 2


def http_tokens(text: str) -> int:
    """About one for each letter with the space before it."""
    return len(text) // 2
