"""The servers, the relay and the front end, and the table of results."""

import contextlib
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anthropic
import pytest

from anyclaude.mlx.demo import MODEL_PATH
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.relay_process import RelayProcess
from tests.models import saved
from tests.upstreams.report import Reporter
from tests.upstreams.servers import LLAMA_WINDOW_TOKENS, LlamaCpp, Server, VllmMlx

DIALECTS = ("openai", "anthropic")
WAYS = ("stream", "whole")
KINDS = {"llama-cpp": "llama-cpp", "vllm-mlx": "other"}
# vllm-mlx fails at an empty request; its token count identifies the dialect.
FOUND = {"llama-cpp": pb.DIALECT_ANTHROPIC, "vllm-mlx": pb.DIALECT_ANTHROPIC}
# vllm-mlx has none; for it the relay refuses, by its settings.
WINDOW_TOKENS = LLAMA_WINDOW_TOKENS
_WAIT_SECONDS = 60
_REPORTER = pytest.StashKey[Reporter]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--page", default="", help="write the results there, as markdown")


def pytest_configure(config: pytest.Config) -> None:
    # Options are unknown when this file is read after the command line was.
    page = str(config.getoption("page", ""))
    if page:
        config.stash[_REPORTER] = Reporter(Path(page), datetime.date.today().isoformat())
        config.pluginmanager.register(config.stash[_REPORTER])


@dataclass(frozen=True)
class Mode:
    """One mode for one server; `stream` is passed to the client and to the server."""

    server: str
    dialect: str
    way: str = "stream"

    @property
    def name(self) -> str:
        return f"{self.server}-{self.dialect}-{self.way}"

    @property
    def table(self) -> dict[str, object]:
        return {"dialect": self.dialect, "stream": self.way == "stream"}


MODES = [Mode(*each) for each in ((s, d, w) for s in KINDS for d in DIALECTS for w in WAYS)]


@pytest.fixture(scope="session")
def servers(tmp_path_factory, pytestconfig) -> Iterator[dict[str, Server]]:
    """Each server, and again with a model whose answer never ends by itself."""
    folder = tmp_path_factory.mktemp("models")
    endless = saved.save(folder / "endless", endless=True)
    parser = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    made = {
        "llama-cpp": LlamaCpp(folder / "demo.gguf"),
        "llama-cpp-endless": LlamaCpp(folder / "endless.gguf", "endless"),
        "vllm-mlx": VllmMlx(MODEL_PATH, *parser),
        "vllm-mlx-endless": VllmMlx(endless, "--continuous-batching"),
    }
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(server) for name, server in made.items()}
        if reporter := pytestconfig.stash.get(_REPORTER, None):
            reporter.versions = {name: running[name].version for name in KINDS}
        yield running


@pytest.fixture(scope="session")
def relay(servers) -> Iterator[RelayProcess]:
    tables = {}
    for name, kind in KINDS.items():
        common = {"kind": kind, "base_url": servers[name].base_url}
        if name == "vllm-mlx":
            common["context_window_tokens"] = WINDOW_TOKENS
        tables[name] = common
        modes = [mode for mode in MODES if mode.server == name]
        tables |= {mode.name: {**common, **mode.table} for mode in modes}
        for dialect in DIALECTS:
            endless = {"base_url": servers[f"{name}-endless"].base_url, "dialect": dialect}
            tables[f"{name}-{dialect}-endless"] = {"kind": kind, **endless}
    with RelayProcess(tables) as process:
        yield process


@pytest.fixture(scope="session")
def frontend(relay) -> Iterator[FrontendProcess]:
    with FrontendProcess() as process:
        process.push(*(route(relay.socket_path, mode=mode) for mode in relay.modes))
        yield process


class Asking:
    """The official client in one mode."""

    def __init__(self, frontend: FrontendProcess, relay: RelayProcess, mode: str) -> None:
        self.mode = mode
        self.relay = relay
        self.client = anthropic.Anthropic(
            base_url=frontend.base_url,
            api_key="any",
            max_retries=0,
            timeout=_WAIT_SECONDS,
            default_headers={"x-anyclaude-mode": mode},
        )

    def status(self) -> pb.UpstreamStatus:
        return self.relay.status(self.mode)

    def ask(self, *messages, way="stream", **fields) -> anthropic.types.Message:
        request = {"model": "claude-x", "max_tokens": 200, "messages": list(messages), **fields}
        if way == "whole":
            return self.client.messages.create(**request, timeout=_WAIT_SECONDS)
        with self.client.messages.stream(**request) as running:
            return running.get_final_message()


@pytest.fixture
def asking(frontend, relay):
    """Makes the client of a mode."""
    made = []

    def make(mode: str) -> Asking:
        made.append(Asking(frontend, relay, mode))
        return made[-1]

    yield make
    for one in made:
        one.client.close()
