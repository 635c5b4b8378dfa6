"""The real front end inside a namespace, with a worker that follows the test's script.

It makes the client's side of a conversation happen: that a model calls three tools, or that a
prompt is too long. What the service itself makes of a model's words is shown elsewhere.
"""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from anyclaude.runtime.settings import SearchSettings
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say
from tests.e2e.namespace import Namespace
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.scripted_worker import ScriptedWorker

Event = worker.GenerateResponse
Answer = Callable[[], Iterator[Event]]
Body = dict[str, Any]

# A socket belongs to the namespace that it is made in, whoever listens on it later.
_LISTEN: Final = (
    "import socket, sys; made = socket.create_server(('127.0.0.1', 0)); "
    "socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b'x'], [made.fileno()])"
)

_SUMMARY_REQUEST: Final = "create a detailed summary of"


def listen_within(namespace: Namespace) -> socket.socket:
    """A listening socket whose address is one inside the namespace."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(
            namespace.command([sys.executable, "-c", _LISTEN, str(theirs.fileno())]),
            pass_fds=[theirs.fileno()],
            check=True,
        )
        _, (descriptor,), *_ = socket.recv_fds(ours, 1, 1)
    return socket.socket(fileno=descriptor)


def text(*pieces: str) -> Answer:
    """An answer of text."""
    return lambda: say.text_answer(*pieces)


def calls(*wanted: tuple[str, Body], first: str = "") -> Answer:
    """An answer of tool calls, after the text `first` if there is any."""

    def answer() -> Iterator[Event]:
        yield say.started()
        if first:
            yield from (say.text_start(0), say.delta(0, text=first), say.stop(0))
        for index, (name, arguments) in enumerate(wanted, start=1 if first else 0):
            yield say.tool_start(index, f"toolu_{name}{index}_{next(_NUMBERS)}", name)
            written = json.dumps(arguments)
            for at in range(0, len(written), 7):
                yield say.delta(index, partial_json=written[at : at + 7])
            yield say.stop(index)
        yield say.finished(worker.STOP_REASON_TOOL_USE)

    return answer


def refusal(status: int, message: str) -> Answer:
    """An error instead of an answer."""
    return lambda: iter([say.failed(status, message)])


class _Numbers:
    """Call ids that are unique over a test run, since the client keeps them in its history."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def __next__(self) -> int:
        with self._lock:
            self._last += 1
            return self._last


_NUMBERS: Final = _Numbers()


class Request:
    """One Messages request that the client sent."""

    def __init__(self, request: worker.GenerateRequest) -> None:
        self.body: Body = json.loads(request.body_json)
        self.identity = request.identity

    @property
    def messages(self) -> list[Body]:
        return list(self.body["messages"])

    @property
    def wants_json(self) -> bool:
        """Whether the request asks for an answer by a schema, as the title call does."""
        return bool((self.body.get("output_config") or {}).get("format"))

    @property
    def is_compaction(self) -> bool:
        if self.identity.request_class == worker.REQUEST_CLASS_COMPACTION:
            return True
        # Versions before 2.1.273 send no header for this.
        return _SUMMARY_REQUEST in str(self.messages[-1]["content"])

    @property
    def is_main(self) -> bool:
        """Whether the request is a turn of the conversation itself."""
        return (
            bool(self.body.get("tools"))
            and not self.identity.agent_id
            and not self.is_compaction
            and not self.wants_json
        )

    @property
    def results(self) -> list[Body]:
        """The tool results of the newest user turn."""
        turns = [message for message in self.messages if message["role"] == "user"]
        return blocks_of(turns[-1], "tool_result")


def blocks_of(message: Body, kind: str) -> list[Body]:
    content = message["content"]
    return [] if isinstance(content, str) else [b for b in content if b["type"] == kind]


class Script:
    """The scripted answers: the conversation in order, everything else by its kind."""

    def __init__(
        self,
        *main: Answer,
        agent: Sequence[Answer] = (),
        compaction: Answer | None = None,
        title: str = "A title",
    ) -> None:
        self.requests: list[Request] = []
        self._main = iter(main)
        self._agent = iter(agent)
        self._compaction = compaction
        self._title = text(json.dumps({"title": title}))
        self._lock = threading.Lock()

    def __call__(self, request: worker.GenerateRequest) -> Iterator[Event]:
        with self._lock:
            asked = Request(request)
            self.requests.append(asked)
            answer = self._answer(asked)
        return answer()

    def _answer(self, asked: Request) -> Answer:
        unexpected = refusal(400, "the script has no answer left for this request")
        if asked.is_compaction and self._compaction:
            return self._compaction
        if asked.wants_json:
            return self._title
        if asked.identity.agent_id:
            return next(self._agent, unexpected)
        if asked.is_main:
            return next(self._main, unexpected)
        return text("Nothing to say.")

    @property
    def main(self) -> list[Request]:
        """The turns of the conversation, in order."""
        return [request for request in self.requests if request.is_main]


@dataclass(frozen=True)
class ScriptedService:
    """The front end on an address inside the namespace; `play` sets its answers."""

    namespace: Namespace
    base_url: str
    worker: ScriptedWorker

    def play(self, script: Script) -> Script:
        self.worker.script = script
        return script


@contextmanager
def scripted_service(
    namespace: Namespace, search: SearchSettings | None = None
) -> Iterator[ScriptedService]:
    """A service that runs while the context lasts."""
    with (
        ScriptedWorker() as worker_,
        FrontendProcess(listen_within(namespace), search, ping_interval_seconds=1) as front,
    ):
        front.push(route(worker_.socket_path))
        yield ScriptedService(namespace, front.base_url, worker_)
