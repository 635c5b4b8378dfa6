"""Fixtures of the end-to-end tests: a namespace, the service inside it, the client beside it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.claude_code import ClaudeCode, ClaudeCodeMissing, find_binary
from tests.e2e.namespace import Namespace, NamespaceUnavailable, open_namespace
from tests.e2e.scripted import ScriptedService, scripted_service
from tests.e2e.service import Service
from tests.requirements import unavailable


@pytest.fixture(scope="session")
def claude_binary() -> Path:
    """The Claude Code binary to run."""
    try:
        return find_binary()
    except ClaudeCodeMissing as missing:
        unavailable(str(missing))


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    """A network namespace with nothing but loopback; no process in it survives the module."""
    try:
        with open_namespace() as namespace:
            yield namespace
            left = namespace.remaining_processes()
    except NamespaceUnavailable as missing:
        unavailable(str(missing))
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="module")
def service(namespace: Namespace) -> Iterator[Service]:
    """A ready service on the demo model; it has to stop cleanly."""
    with Service(namespace) as service:
        yield service.ready()
        exit_code = service.stop()
        left = namespace.remaining_processes()
        assert exit_code == 0, service.log_tail()
    assert not left, f"left behind: {left}"


@pytest.fixture
def claude(claude_binary: Path, service: Service, tmp_path: Path) -> ClaudeCode:
    """A client with a fresh home that talks to the service."""
    home = tmp_path / "home"
    home.mkdir()
    return ClaudeCode(claude_binary, service.namespace, service.base_url, home)


@pytest.fixture
def scripted(namespace: Namespace) -> Iterator[ScriptedService]:
    """A front end whose model follows the test's script."""
    with scripted_service(namespace) as service:
        yield service


@pytest.fixture
def scripted_claude(claude_binary: Path, scripted: ScriptedService, tmp_path: Path) -> ClaudeCode:
    """A client with a fresh home that talks to the scripted model."""
    home = tmp_path / "home"
    home.mkdir()
    return ClaudeCode(claude_binary, scripted.namespace, scripted.base_url, home)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty folder for the client to work in."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder
