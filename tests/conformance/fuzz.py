"""Sends thousands of bodies of every kind; each must get a response of the API.

    make fuzz COUNT=20000 BASE_URL=http://127.0.0.1:8000 SEED=7

Allowed are answers that follow the grammar, 4xx in the envelope, and 529 with a time to come back.
Without an address a tiny model is served for the purpose, and its processes are watched: none may
be replaced, and their memory must stay flat.
"""

import argparse
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import psutil
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.conformance.endpoint import accepted
from tests.conformance.fuzz_bodies import Shot, shots
from tests.conformance.grammar import check
from tests.conformance.sse import parse
from tests.integration.service import Service
from tests.models.saved import save

# No such body takes a tiny model longer, even on a busy machine.
ANSWER_SECONDS: Final = 120
_PROGRESS_LINES: Final = 10
_LOG_TAIL: Final = 6000
# The first part fills pools and caches.
_SETTLED_PART: Final = 0.3
_GROWTH: Final = 1.1
_SLACK_BYTES: Final = 32 * 1024 * 1024
# Small enough to be full, and evicting, long before the end.
_CACHE_BYTES: Final = 8 * 1024 * 1024
_WINDOW_TOKENS: Final = 4096


@dataclass
class Tally:
    """Counts of the responses by kind."""

    statuses: Counter[str] = field(default_factory=Counter)
    shots: int = 0
    slowest_seconds: float = 0.0


class Gun:
    """Sends shots to one server and judges the responses."""

    def __init__(self, base_url: str, after_each: Callable[[Tally], None] = lambda _: None) -> None:
        self.tally = Tally()
        self._after_each = after_each
        self._http = httpx.Client(
            base_url=base_url,
            timeout=ANSWER_SECONDS,
            trust_env=False,
            headers={"content-type": "application/json", "x-api-key": "fuzz"},
        )

    def fire(self, count: int, seed_value: int) -> None:
        """Sends `count` shots; raises with the smallest body found that breaks a rule."""

        @seed(seed_value)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(shots)
        def attempt(shot: Shot) -> None:
            self._send(shot)

        with self._http:
            attempt()

    def _send(self, shot: Shot) -> None:
        begun = time.monotonic()
        self.tally.shots += 1
        with self._http.stream(
            "POST", shot.path, content=shot.raw, headers=shot.headers
        ) as response:
            if shot.leave:
                next(response.iter_raw(), b"")
                outcome = "left"
            else:
                response.read()
                outcome = _judge(response)
        self.tally.statuses[outcome] += 1
        self.tally.slowest_seconds = max(self.tally.slowest_seconds, time.monotonic() - begun)
        self._after_each(self.tally)


def _judge(response: httpx.Response) -> str:
    """The kind of a response; raises for one that is not allowed."""
    status = response.status_code
    assert response.headers.get("request-id"), "no request-id"
    if status == httpx.codes.OK:
        return _judge_answer(response)
    assert 400 <= status < 500 or status == 529, f"{status}: {response.text}"
    body = response.json()
    assert body["type"] == "error"
    assert body["error"]["message"]
    if status == 529:
        assert int(response.headers["retry-after"]) >= 1
    return str(status)


def _judge_answer(response: httpx.Response) -> str:
    if response.headers["content-type"].startswith("text/event-stream"):
        message = check(frame.event for frame in parse([response.content]))
        assert message.error is None, f"the stream ends in {message.error}"
        return "200 stream"
    # With edits of the context the API tells the count before them as well.
    if response.json().keys() - {"context_management"} == {"input_tokens"}:
        return "200 count"
    accepted(response)
    return "200 whole"


class Watch:
    """The processes of a service of ours: none may be replaced, their memory must stay flat."""

    def __init__(self, service: Service, count: int) -> None:
        self._service = service
        self._count = count
        self._pids = self.pids()
        self._settled_bytes = 0

    def pids(self) -> set[int]:
        # Direct ones: MLX starts compilers below the worker.
        return {child.pid for child in psutil.Process(self._service.process.pid).children()}

    def resident_bytes(self) -> int:
        return sum(
            psutil.Process(pid).memory_info().rss
            for pid in {self._service.process.pid, *self.pids()}
        )

    def look(self, tally: Tally) -> None:
        """Called after each shot, so that a body that ends a process is known."""
        self._check_processes()
        if tally.shots % max(1, self._count // _PROGRESS_LINES) == 0:
            now = self.resident_bytes()
            print(f"{tally.shots:6} bodies, {now >> 20} MiB resident, {dict(tally.statuses)}")
        if not self._settled_bytes and tally.shots >= self._count * _SETTLED_PART:
            self._settled_bytes = self.resident_bytes()

    def _check_processes(self) -> None:
        if self.pids() != self._pids:
            # The next body is judged by the processes that there are then.
            self._pids = self.pids()
            raise AssertionError(f"a process was replaced\n{self._service.output[-_LOG_TAIL:]}")

    def conclude(self) -> None:
        """Raises if a process was replaced or memory grew."""
        self._check_processes()
        grown = self.resident_bytes()
        print(f"resident: {self._settled_bytes >> 20} MiB settled, {grown >> 20} MiB at the end")
        assert grown <= self._settled_bytes * _GROWTH + _SLACK_BYTES, "memory grew"


def _fuzz_own(count: int, seed_value: int) -> Tally:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ac-fuzz-") as folder:
        model = save(Path(folder) / "tiny", max_position_embeddings=_WINDOW_TOKENS)
        with Service(
            model=model, ANYCLAUDE__CACHE__MEMORY_LIMIT_BYTES=str(_CACHE_BYTES)
        ) as service:
            watch = Watch(service.ready(), count)
            gun = Gun(service.base_url, watch.look)
            gun.fire(count, seed_value)
            watch.conclude()
            assert service.stop() == 0
    return gun.tally


def _fuzz_other(base_url: str, count: int, seed_value: int) -> Tally:
    gun = Gun(base_url)
    gun.fire(count, seed_value)
    return gun.tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", default="")
    parser.add_argument("--base-url", default="")
    parser.add_argument("--seed", default="")
    given_ = parser.parse_args()
    count = int(given_.count or 20_000)
    seed_value = int(given_.seed or secrets.randbelow(1 << 32))
    print(f"seed {seed_value}, {count} bodies", flush=True)
    begun = time.monotonic()
    tally = (
        _fuzz_other(given_.base_url, count, seed_value)
        if given_.base_url
        else _fuzz_own(count, seed_value)
    )
    print(
        f"{tally.shots} bodies in {time.monotonic() - begun:.0f} s, the slowest "
        f"{tally.slowest_seconds:.2f} s: {dict(sorted(tally.statuses.items()))}"
    )


if __name__ == "__main__":
    main()
