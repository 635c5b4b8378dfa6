"""In a local mode nothing leaves the machine, not even a DNS query.

The namespace has no route out, and the kernel counts packets that need one. A proxy that the user's
shell names gets nothing either.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.namespace import Namespace
from tests.integration.service import Service

_ASK: Final = """
import json, sys, httpx
url, mode, stream = sys.argv[1:]
with httpx.Client(trust_env=False, timeout=60) as http:
    answer = http.post(url + "/v1/messages", headers={"x-anyclaude-mode": mode}, json={
        "model": "any", "max_tokens": 30, "stream": stream == "stream",
        "messages": [{"role": "user", "content": "Hello?"}]})
    http.post(url + "/v1/messages/count_tokens", json={
        "model": "any", "messages": [{"role": "user", "content": "Hello?"}]})
    http.get(url + "/v1/models")
    http.post(url + "/v1/a/path/of/the/api", json={})
print(json.dumps([answer.status_code, answer.headers["x-anyclaude-mode"]]))
"""
_CALL_OUT: Final = """
import contextlib, socket
for family, address in (socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1"):
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        with contextlib.suppress(OSError), socket.socket(family, kind) as called:
            called.connect((address, 53))
"""

# An HTTP proxy that refuses every request and prints the first line of each.
_PROXY: Final = """
import http.server
class Refuse(http.server.BaseHTTPRequestHandler):
    def do_any(self):
        print(self.requestline, flush=True)
        self.send_error(502)
    do_CONNECT = do_GET = do_HEAD = do_POST = do_any
    log_message = lambda *_: None
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
print(server.server_port, flush=True)
server.serve_forever()
"""
_LAUNCH_SECONDS: Final = 300
_PROXY_VARIABLES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Counter:
    """The connections and packets that found no way out of the namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def run(self, *argv: str) -> str:
        command = self._namespace.command(argv)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def tried(self) -> int:
        """OutNoRoutes of IPv4 and IPv6 (RFC 4293, ipSystemStatsOutNoRoutes)."""
        names, values = (
            line.split() for line in self.run("cat", "/proc/net/snmp").splitlines()[:2]
        )
        snmp6 = dict(line.split() for line in self.run("cat", "/proc/net/snmp6").splitlines())
        return int(values[names.index("OutNoRoutes")]) + int(snmp6["Ip6OutNoRoutes"])


@pytest.fixture
def counter(namespace: Namespace) -> Counter:
    """A counter that was seen to count."""
    counter = Counter(namespace)
    before = counter.tried()
    counter.run(sys.executable, "-c", _CALL_OUT)
    assert counter.tried() == before + 4
    return counter


def test_a_local_mode_stays_on_this_machine(namespace: Namespace, counter: Counter) -> None:
    """Start, requests, every reading verb and a refused switch send nothing out."""
    before = counter.tried()
    with Service(within=namespace.command, ANTHROPIC_API_KEY="sk-ant-unused") as service:
        service.ready()
        for way in ("stream", "whole"):
            answer = counter.run(sys.executable, "-c", _ASK, service.base_url, "mlx-lm", way)
            assert json.loads(answer) == [200, "mlx-lm"]
        for words in ("status", "mode", "cache list", "requests", "metrics", "config"):
            assert service.control(*words.split()).code == 0, words
        # A server on this machine that is not there.
        assert service.control("mode", "lmstudio").code == 5
        assert service.stop() == 0
    assert counter.tried() == before


def test_only_a_switch_to_a_distant_mode_leaves(namespace: Namespace, counter: Counter) -> None:
    """The same counter detects a switch to a server elsewhere."""
    far = {"ANYCLAUDE__UPSTREAMS__FAR__BASE_URL": "http://198.51.100.1:9"}
    with Service(within=namespace.command, **far) as service:
        service.ready()
        before = counter.tried()
        assert service.control("mode").code == 0
        assert counter.tried() == before
        assert service.control("mode", "far").code == 5
        assert counter.tried() > before


def test_a_proxy_of_the_shell_gets_nothing(
    claude_binary: Path, namespace: Namespace, tmp_path: Path
) -> None:
    """`anyclaude` runs a tool loop past the proxy that the shell names; no request reaches it."""
    with (
        subprocess.Popen(
            namespace.command([sys.executable, "-c", _PROXY]), stdout=subprocess.PIPE, text=True
        ) as proxy,
        Service(within=namespace.command) as service,
    ):
        assert proxy.stdout is not None
        address = f"http://127.0.0.1:{proxy.stdout.readline().strip()}"
        names = (*_PROXY_VARIABLES, *map(str.lower, _PROXY_VARIABLES))
        environ = {
            **service.environ,
            **dict.fromkeys(names, address),
            "NO_PROXY": "intranet.example",
            "HOME": str(tmp_path),
            "PATH": f"{claude_binary.parent}:{os.environ['PATH']}",
            "IS_SANDBOX": "1",
            "CLAUDE_CODE_TMPDIR": str(tmp_path),
        }
        service.ready()
        words = ("-p", "Please say hello with Bash.", "--allowedTools", "Bash")
        done = subprocess.run(
            namespace.command([sys.executable, "-m", "anyclaude.launcher", *words]),
            env=environ,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LAUNCH_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "The tool call came back" in done.stdout
        # The proxy counts: without the variables of `anyclaude` a request does reach it.
        fetch = f"import httpx; httpx.get({service.base_url!r} + '/health')"
        refused = {**service.environ, **dict.fromkeys(names, address)}
        command = namespace.command([sys.executable, "-c", fetch])
        subprocess.run(command, env=refused, check=True, capture_output=True)
        proxy.terminate()
        seen = proxy.stdout.read().splitlines()
        assert seen == [f"GET {service.base_url}/health HTTP/1.1"]
        assert service.stop() == 0
