"""Uses a real service for half an hour, and judges whether its memory and descriptors stay.

    python -m benchmarks.soak [--minutes N] [--seed N] [--write PAGE]

Four conversations ask at temperature 0, and every answer is compared with that of the undisturbed
service. Clients leave in the middle of answers, the mode changes to another server and back, and
every process but the daemon is killed now and then. All is drawn from the seed.

The caches use their budget from the beginning, since the conversations need several times as much.
The life of a process is judged if it lasts a quarter of the run: a sixth of it is for warming up,
the next sixth is what the remaining two thirds are compared with. In half an hour these are five,
five and twenty minutes for the daemon; the others are killed, and live shorter.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from anyclaude.control.v1 import control_pb2
from benchmarks import soak_report
from benchmarks.soak_report import Life
from tests.faults.disturbed import CONVERSATIONS, Answer, Conversation, Harm, disturbed_service
from tests.integration.scripted_upstream import (
    STREAM,
    ScriptedUpstream,
    chunk,
    event,
    openai_server,
)
from tests.integration.service import Service, wait_ended

_KILLED: Final = ("mlx", "frontend", "relay")
# Each of them is killed once in so many minutes.
_MINUTES_PER_KILL: Final = 15
# Conversations that each client has in turn.
_TOPICS: Final = 4
_LEAVES: Final = 0.3
_SAMPLE_SECONDS: Final = 2.0
_LOCAL, _OTHER = "mlx-lm", "lmstudio"
_HELLO: Final = [
    STREAM,
    chunk(content="Hello"),
    chunk("stop"),
    event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}),
    event("[DONE]"),
]
_ELSEWHERE: Final = Answer(_OTHER, [{"type": "text", "text": "Hello"}], "end_turn", (7, 1))
# Everything that is bounded reaches its bound while the processes warm up.
_BOUNDS: Final = {
    "ANYCLAUDE__CACHE__MEMORY_LIMIT_BYTES": "12000000",
    "ANYCLAUDE__CACHE__DISK_LIMIT_BYTES": "40000000",
    "ANYCLAUDE__CACHE__EXPLAIN_CONVERSATIONS": "16",
    "ANYCLAUDE__CACHE__EXPLAIN_REQUESTS": "50",
    "ANYCLAUDE__LOG__MAX_RECORDS": "50",
    "ANYCLAUDE__LOG__FILE_MAX_BYTES": "1000000",
}


@dataclass
class Soak:
    """What happened."""

    minutes: float
    seed: int
    switches: int = 0
    kills: int = 0
    frontend_kills: int = 0
    left: int = 0
    answers: int = 0
    cut: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    soak = Soak(given.minutes, given.seed)
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder)) as service:
        _run(service, soak)
        soak.failures += _left_over(service, soak)
    table = soak_report.table(soak.lives, soak.minutes)
    summary = _summary(soak)
    sys.stdout.write(f"{summary}\n{table}")
    if given.write:
        soak_report.write(given.write, summary, table, soak.lives)
    soak.failures += soak_report.judge(soak.lives, soak.minutes)
    if soak.failures:
        raise SystemExit("\n".join(soak.failures))


def _summary(soak: Soak) -> str:
    return (
        f"{soak.minutes:g} minutes with seed {soak.seed}: {soak.answers} answers, of which "
        f"{len(soak.failures)} were wrong or failed; {soak.left} clients left, {soak.switches} "
        f"changes of the mode, {soak.kills} kills. {soak.cut} connections ended at the "
        f"{soak.frontend_kills} kills of the front end, and {soak.refused} requests got 529.\n"
    )


@contextmanager
def _service(folder: Path) -> Iterator[Service]:
    with (
        ScriptedUpstream(openai_server(lambda _: _HELLO)) as upstream,
        disturbed_service(folder, LMSTUDIO_URL=upstream.base_url, **_BOUNDS) as service,
    ):
        yield service


def _run(service: Service, soak: Soak) -> None:
    numbers = range(CONVERSATIONS * _TOPICS)
    talks = [Conversation(number, _ELSEWHERE) for number in numbers]
    for talk in talks:
        talk.learn(service.http)
    stop = threading.Event()
    clients = [_Client(service, soak, talks[number::CONVERSATIONS]) for number in range(4)]
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(client.run, stop) for client in clients]
        running.append(pool.submit(_sample, service, soak, stop))
        try:
            _disturb(service, soak)
        finally:
            stop.set()
    for one in running:
        one.result()
    soak.answers = sum(talk.answered for talk in talks)
    soak.cut = sum(talk.cut for talk in talks)
    soak.refused = sum(talk.sent_again for talk in talks)
    soak.failures += [failure for talk in talks for failure in talk.failures]
    if soak.cut > CONVERSATIONS * soak.frontend_kills:
        soak.failures.append("connections ended that no kill explains")


class _Client:
    """Has its conversations in turn, and now and then leaves in the middle of an answer."""

    def __init__(self, service: Service, soak: Soak, talks: list[Conversation]) -> None:
        self._service = service
        self._soak = soak
        self._talks = talks
        self._chance = random.Random(f"{soak.seed}-{talks[0].number}")

    def run(self, stop: threading.Event) -> None:
        cycle = 0
        while not stop.is_set():
            talk = self._chance.choice(self._talks)
            talk.ask_all(self._service.http, f"cycle-{cycle}", Harm.CUT)
            if self._chance.random() < _LEAVES:
                self._leave(talk.request(0))
            cycle += 1

    def _leave(self, request: dict[str, Any]) -> None:
        """Reads a random number of events, and closes the connection."""
        events = self._chance.randrange(40)
        whole = request | {"stream": True}
        try:
            with (
                self._service.http() as http,
                http.stream("POST", "/v1/messages", json=whole) as response,
            ):
                for _, _line in zip(range(events), response.iter_lines(), strict=False):
                    pass
        except (httpx.RemoteProtocolError, httpx.ReadError):
            return
        self._soak.left += 1


def _disturb(service: Service, soak: Soak) -> None:
    """Changes the mode and kills processes until the run ends."""
    chance = random.Random(soak.seed)
    began, length = time.monotonic(), soak.minutes * 60
    count = max(1, round(soak.minutes / _MINUTES_PER_KILL))
    kills = sorted((chance.uniform(0, length), name) for name in _KILLED for _ in range(count))
    while (passed := time.monotonic() - began) < length:
        while kills and kills[0][0] <= passed:
            _kill(service, soak, kills.pop(0)[1])
        time.sleep(chance.uniform(5, 25))
        for mode in (_OTHER, _LOCAL):
            service.stub("ModeService").SetMode(control_pb2.SetModeRequest(mode=mode))
            soak.switches += 1
            time.sleep(chance.uniform(1, 6))


def _kill(service: Service, soak: Soak, name: str) -> None:
    worker = service.worker(name)
    psutil.Process(worker.pid).kill()
    soak.kills += 1
    soak.frontend_kills += name == "frontend"
    service.wait_worker(control_pb2.WORKER_STATE_READY, name, worker.generation + 1)


def _sample(service: Service, soak: Soak, stop: threading.Event) -> None:
    """Notes memory and descriptors of every process until the run ends."""
    began, lives = time.monotonic(), dict[int, Life]()
    while not stop.wait(_SAMPLE_SECONDS):
        status = service.status()
        pids = {"daemon": status.pid} | {worker.name: worker.pid for worker in status.workers}
        for name, pid in pids.items():
            life = lives.setdefault(pid, Life(name))
            arrays = status.memory.active_bytes if name == "mlx" else 0
            _note(life, pid, time.monotonic() - began, arrays)
    soak.lives = [life for life in lives.values() if life.samples]


def _note(life: Life, pid: int, seconds: float, array_bytes: int) -> None:
    try:
        process = psutil.Process(pid)
        rss, descriptors = process.memory_info().rss, process.num_fds()
    except (psutil.Error, ValueError):
        # It does not run at the moment.
        return
    life.samples.append(soak_report.Sample(seconds, rss, array_bytes, descriptors))


def _left_over(service: Service, soak: Soak) -> list[str]:
    """Processes that run and should not, before and after the service stops."""
    children = service.children()
    known = {worker.pid for worker in service.status().workers}
    orphans = [f"process {one.pid} is no worker" for one in children if one.pid not in known]
    if service.stop() != 0:
        orphans.append("the daemon failed")
    return orphans + [f"process {one.pid} outlived the daemon" for one in wait_ended(children, 10)]


if __name__ == "__main__":
    main()
