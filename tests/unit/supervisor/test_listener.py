"""The HTTP socket: its address as others see it, and the owner of a port in use."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from anyclaude.runtime.settings import ServerSettings
from anyclaude.supervisor.listener import PortTakenError, base_url, listen

_LISTENS = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def rapportd(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The pid and the port of a listening process that is called like the one of macOS."""
    program = tmp_path / "rapportd"
    program.symlink_to(Path(sys.executable).resolve())
    with subprocess.Popen(
        [program, "-S", "-c", _LISTENS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        process.kill()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_address_is_numeric(host: str) -> None:
    """`localhost` may reach another process by IPv6, so the address never contains that name."""
    with listen(ServerSettings.model_validate({"host": host, "port": 0})) as listener:
        assert base_url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.skipif(sys.platform == "darwin", reason="a Python there runs under another name")
def test_rapportd_is_explained(rapportd: tuple[int, int]) -> None:
    """The process of macOS is named with its pid; the advice is another port, not to stop it."""
    pid, port = rapportd

    with pytest.raises(PortTakenError) as caught:
        listen(ServerSettings(port=port))

    message = str(caught.value)
    assert f"it is taken by pid {pid} (" in message
    assert "belongs to macOS (Handoff, AirDrop): do not stop it" in message
    assert "`ANYCLAUDE_PORT=N anyclaudectl service install`" in message


def test_an_owner_that_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's process is invisible, so the message has the command that names it."""

    def hidden(process: psutil.Process, kind: str) -> None:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "net_connections", hidden)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"sudo lsof -nP -iTCP:{port} -sTCP:LISTEN"):
            listen(ServerSettings(port=port))
