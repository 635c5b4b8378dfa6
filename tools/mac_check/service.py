"""The real service in a home of its own, and one streamed request to it.

The service gets almost none of the shell's environment: the report is about the defaults, and no
key of the shell reaches it.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.mac_check.report import CheckError

SCRIPTS: Final = Path(sys.prefix) / "bin"
# A large model is read from disk first.
READY_SECONDS: Final = 900
_STOP_SECONDS: Final = 60
_REQUEST_SECONDS: Final = 900
_RECORD_SECONDS: Final = 10
_KEPT_VARIABLES: Final = ("HOME", "LANG", "LOGNAME", "PATH", "TMPDIR", "USER")


@dataclass(frozen=True)
class Commands:
    """Runs `anyclaudectl` for the service whose files are in `home`."""

    home: Path
    model: Path | None

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        own = {"ANYCLAUDE_HOME": str(self.home), "ANYCLAUDE_PORT": "0"}
        return kept | own | ({"ANYCLAUDE_MODEL": str(self.model)} if self.model else {})

    def ctl(self, *arguments: str, extra: Mapping[str, str] | None = None) -> str:
        """The output of one command.

        Raises:
            CheckError: the command failed; the message is its own.
        """
        done = subprocess.run(
            [str(SCRIPTS / "anyclaudectl"), *arguments],
            env={**self.environ, **(extra or {})},
            capture_output=True,
            text=True,
            timeout=READY_SECONDS + 60,
            check=False,
        )
        if done.returncode != 0:
            message = (done.stderr or done.stdout).strip()
            raise CheckError(
                f"anyclaudectl {' '.join(arguments)}: exit code {done.returncode}\n{message}"
            )
        return done.stdout

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.ctl("status", "--json"))
        return status

    def wait_ready(self) -> dict[str, Any]:
        self.ctl("wait", "--ready", "--timeout", str(READY_SECONDS))
        return self.status()


@contextlib.contextmanager
def own_home() -> Iterator[Path]:
    """A folder for the service's files; its path is short, as socket paths must be."""
    home = Path(tempfile.mkdtemp(prefix="acm-", dir="/tmp"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def running(model: Path | None) -> Iterator[Commands]:
    """The service in the foreground, ready; it is stopped in any case."""
    with own_home() as home:
        commands = Commands(home, model)
        daemon = subprocess.Popen(
            [str(SCRIPTS / "anyclauded")],
            env=commands.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            commands.wait_ready()
            yield commands
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(_STOP_SECONDS)


@dataclass(frozen=True)
class Answer:
    """One streamed answer, as a client sees it; `ended` says how its stream ended."""

    request_id: str
    output_tokens: int
    ended: str


@dataclass(frozen=True)
class Timed:
    """One answer with the service's own record of what it cost."""

    answer: Answer
    # Prompt tokens that were computed, not reused.
    computed_tokens: int
    first_token_seconds: float
    prefill_seconds: float
    decode_seconds: float

    @property
    def prefill_rate(self) -> float:
        """Tokens per second."""
        return self.computed_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """Tokens per second."""
        return self.answer.output_tokens / self.decode_seconds if self.decode_seconds else 0.0


def timed(commands: Commands, body: Mapping[str, Any]) -> Timed:
    """Sends a request, waits for its whole answer and for the record of it."""
    answer = send(commands.status()["base_url"], body)
    deadline = time.monotonic() + _RECORD_SECONDS
    while time.monotonic() < deadline:
        records = json.loads(commands.ctl("requests", "--json"))["requests"]
        for record in records:
            if record["request_id"] == answer.request_id:
                return _timed(answer, record)
    raise CheckError("The service has no record of a request that it answered.")


def _timed(answer: Answer, record: Mapping[str, Any]) -> Timed:
    usage, timings = record["usage"], record["timings"]
    return Timed(
        answer=answer,
        computed_tokens=usage["input_tokens"] + usage["cache_creation_tokens"],
        first_token_seconds=timings["first_token"] or 0.0,
        prefill_seconds=timings["prefill"] or 0.0,
        decode_seconds=timings["decode"] or 0.0,
    )


def send(base_url: str, body: Mapping[str, Any]) -> Answer:
    """Sends a streaming request and reads its whole answer."""
    request = urllib.request.Request(
        f"{base_url}/v1/messages",
        data=json.dumps({**body, "model": "local", "stream": True}).encode(),
        headers={"content-type": "application/json", "anthropic-version": "2023-06-01"},
    )
    # A proxy of the system must not see requests to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_REQUEST_SECONDS) as response:
        return read_answer(response, response.headers["request-id"])


def read_answer(lines: Iterable[bytes], request_id: str) -> Answer:
    """Reads an event stream to its end, also one that is cut."""
    output_tokens = 0
    ended = "cut: the stream ended without message_stop"
    try:
        for event in _events(lines):
            match event["type"]:
                case "message_delta":
                    output_tokens = event["usage"]["output_tokens"]
                case "message_stop":
                    ended = "complete"
                case "error":
                    ended = f"error event: {event['error']['type']}"
    except (OSError, http.client.HTTPException) as error:
        ended = f"cut: {type(error).__name__}"
    return Answer(request_id, output_tokens, ended)


def _events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))
