"""Options and fixtures of the conformance suite.

    make conformance BASE_URL=http://127.0.0.1:8000 TABLE=results.md

Without an address it starts this project's service on the demo model and tests that.
"""

import datetime
import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anthropic
import httpx
import pytest

from tests.conformance.endpoint import MESSAGES, Endpoint
from tests.conformance.report import Recorder, Run, single_table, summary, write
from tests.integration.service import Service

_OPTIONS = {
    "base-url": "the server to ask; without it this project's service is started",
    "api-key": "what to show that server",
    "model": "the model to name; without it the first that the server lists",
    "server": "name and version of the server, for the table",
    "table": "write the results there, as JSON if it ends in .json, else as markdown",
}
# What this project's service is known not to do yet. An entry that passes is a failure.
_OPEN: dict[str, str] = {}
_RECORDER = pytest.StashKey[Recorder]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    for name, meaning in _OPTIONS.items():
        group.addoption(f"--{name}", default="", help=meaning)


def _option(config: pytest.Config, name: str) -> str:
    # Options are unknown when this file is read after the command line was.
    return str(config.getoption(name.replace("-", "_"), ""))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(name): the line of the conformance table")
    config.addinivalue_line("markers", "heavy: runs after all other cases")
    config.stash[_RECORDER] = Recorder()
    config.pluginmanager.register(config.stash[_RECORDER])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    own = not _option(config, "base-url")
    for item in items:
        config.stash[_RECORDER].add_case(item)
        name = getattr(item, "originalname", "")
        if own and item.get_closest_marker("row") and name in _OPEN:
            item.add_marker(pytest.mark.xfail(reason=_OPEN[name], strict=True))
    # They may leave a server busy or broken, which would make other cases fail. Other tests keep
    # their places.
    mine = [n for n, item in enumerate(items) if item.get_closest_marker("row")]
    ordered = sorted(
        (items[n] for n in mine), key=lambda item: item.get_closest_marker("heavy") is not None
    )
    for n, item in zip(mine, ordered, strict=True):
        items[n] = item


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    results = config.stash[_RECORDER].results
    if not results:
        return
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    run = Run(_server_name(config), today, results)
    if table := _option(config, "table"):
        write(run, Path(table))
    if table or _option(config, "base-url"):
        terminalreporter.section("conformance")
        terminalreporter.write_line(single_table(run))
    else:
        terminalreporter.write_line(f"conformance: {summary(run)}")


def _server_name(config: pytest.Config) -> str:
    own = f"anyclaude {importlib.metadata.version('anyclaude')}"
    asked = _option(config, "base-url")
    return _option(config, "server") or (f"the server at {asked}" if asked else own)


@dataclass(frozen=True)
class Address:
    """The address of the server, and the service if we started it."""

    base_url: str
    service: Service | None = None

    @property
    def own(self) -> bool:
        return self.service is not None


@pytest.fixture(scope="session")
def address(pytestconfig: pytest.Config) -> Iterator[Address]:
    if given := _option(pytestconfig, "base-url"):
        yield Address(given.rstrip("/"))
        return
    # So that waiting shows pings within seconds.
    with Service(
        ANYCLAUDE__SERVER__PING_INTERVAL_SECONDS="0.5", ANYCLAUDE__SERVER__ACCEPT_WAIT_SECONDS="1"
    ) as service:
        yield Address(service.ready().base_url, service)


@pytest.fixture(scope="session")
def surface(address: Address, pytestconfig: pytest.Config) -> Iterator[Endpoint]:
    """The server, whatever it serves."""
    api_key = _option(pytestconfig, "api-key") or "conformance"
    endpoint = Endpoint(address.base_url, api_key, "claude-conformance")
    with endpoint.http:
        endpoint.model = _option(pytestconfig, "model") or _first_model(endpoint.http)
        yield endpoint


def _first_model(http: httpx.Client) -> str:
    try:
        return str(http.get("/v1/models").json()["data"][0]["id"])
    except (ValueError, LookupError):
        # There is no list; the cases about models say so.
        return "claude-conformance"


@pytest.fixture(scope="session")
def _speaks_messages(surface: Endpoint) -> bool:
    return surface.post().status_code not in (httpx.codes.NOT_FOUND, 405)


@pytest.fixture
def endpoint(surface: Endpoint, _speaks_messages: bool) -> Endpoint:
    """The server, which answers the Messages API."""
    if not _speaks_messages:
        pytest.skip(f"the server has no {MESSAGES.partition('?')[0]}")
    return surface


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[anthropic.Anthropic]:
    """The official client, which does not retry."""
    with anthropic.Anthropic(
        base_url=endpoint.base_url, api_key=endpoint.api_key, max_retries=0, timeout=120
    ) as made:
        yield made
