"""The real service for a benchmark: daemon, front end and worker as users run them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

READY_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Timed:
    """One streamed response, as the client saw it."""

    ttft_seconds: float
    usage: dict[str, int]
    content: list[dict[str, Any]]


@dataclass(frozen=True)
class Service:
    base_url: str

    def ask(self, body: dict[str, Any], session: str) -> Timed:
        """Sends a streaming request and times its first content event."""
        payload = json.dumps(body | {"stream": True}).encode()
        headers = {"x-claude-code-session-id": session, "content-type": "application/json"}
        with httpx.Client(timeout=600, trust_env=False) as client:
            client.head(self.base_url)  # The connection is open already, as Claude Code's is.
            began = time.perf_counter()
            url = f"{self.base_url}/v1/messages"
            with client.stream("POST", url, content=payload, headers=headers) as response:
                response.raise_for_status()
                return _read(response.iter_lines(), began)


def _read(lines: Iterator[str], began: float) -> Timed:
    ttft, usage, content = 0.0, {}, []
    for line in lines:
        if not line.startswith("data: "):
            continue
        event = json.loads(line.removeprefix("data: "))
        match event["type"]:
            case "message_start":
                usage = event["message"]["usage"]
            case "content_block_start":
                ttft = ttft or time.perf_counter() - began
                content.append(event["content_block"])
            case "content_block_delta":
                _append(content[-1], event["delta"])
            case "error":
                raise RuntimeError(event["error"]["message"])
    return Timed(ttft, usage, content)


def _append(block: dict[str, Any], delta: dict[str, Any]) -> None:
    for field in ("text", "thinking", "signature"):
        if field in delta:
            block[field] = block.get(field, "") + delta[field]


@contextlib.contextmanager
def running(model: Path) -> Iterator[Service]:
    """Runs the service on `model` in a temporary home, which is removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="acb-", dir="/tmp"))
    environ = os.environ | {
        "ANYCLAUDE_HOME": str(home),
        "ANYCLAUDE_PORT": "0",
        "ANYCLAUDE_MODEL": str(model),
        "ANYCLAUDE__LOG__LEVEL": "warning",
    }
    daemon = subprocess.Popen([sys.executable, "-m", "anyclaude.supervisor"], env=environ)
    try:
        _control(environ, "wait", "--ready", "--timeout", str(READY_TIMEOUT_SECONDS))
        status = json.loads(_control(environ, "status", "--json"))
        yield Service(status["base_url"])
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        shutil.rmtree(home)


def _control(environ: dict[str, str], *args: str) -> str:
    command = [sys.executable, "-m", "anyclaude.cli", *args]
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout
