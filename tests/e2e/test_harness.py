"""The end-to-end harness itself: its parser and its namespace."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from tests.e2e.namespace import Namespace
from tests.e2e.transcript import ToolResult, ToolUse, Usage, parse_transcript

USAGE = {"input_tokens": 1, "cache_creation_input_tokens": 9, "cache_read_input_tokens": 90}

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
LISTEN_AND_CONNECT = (
    "import socket; s = socket.create_server(('127.0.0.1', 0)); "
    "socket.create_connection(s.getsockname(), 3)"
)
WAIT_FOR_INPUT = "import sys; sys.stdin.read()"


def assistant(message_id: str, block: Mapping[str, object]) -> dict[str, object]:
    message = {"id": message_id, "content": [block], "usage": USAGE}
    return {"type": "assistant", "session_id": "s1", "message": message}


def within_seconds(limit: float, holds: Callable[[], bool]) -> bool:
    """Whether `holds` becomes true in time: nsenter takes a moment to enter the namespace."""
    end = time.monotonic() + limit
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def lines(*events: Mapping[str, object]) -> str:
    return "\n".join(json.dumps(event) for event in events)


def test_transcript_gathers_a_tool_loop() -> None:
    """Texts, tool calls, results and one usage for each answer are parsed in order."""
    call = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "true"}}
    result = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": [{"type": "text", "text": "x"}],
    }
    parsed = parse_transcript(
        lines(
            {"type": "system", "subtype": "init", "session_id": "s1"},
            assistant("m1", {"type": "text", "text": "let me look"}),
            assistant("m1", call),
            {"type": "user", "message": {"role": "user", "content": [result]}},
            assistant("m2", {"type": "text", "text": "done"}),
            {"type": "result", "result": "done", "is_error": False},
        ),
        stderr="",
        exit_code=0,
    )
    assert parsed.succeeded
    assert parsed.session_id == "s1"
    assert parsed.texts == ("let me look", "done")
    assert parsed.tool_uses == (ToolUse("t1", "Bash", {"command": "true"}),)
    assert parsed.tool_results == (ToolResult("t1", "x", is_error=False),)
    assert parsed.usages == (Usage(1, 9, 90), Usage(1, 9, 90))
    assert parsed.usages[0].reused == 0.9


def test_transcript_of_a_client_that_fails_to_start() -> None:
    """Plain text in place of JSON is kept for the failure message, and is no result."""
    parsed = parse_transcript("no such option\n", stderr="usage", exit_code=1)
    assert not parsed.succeeded
    assert parsed.stray_lines == ("no such option",)


def test_namespace_reaches_itself_and_nothing_else(namespace: Namespace) -> None:
    """Loopback works inside, and an outside address is unreachable at once."""
    inside = namespace.command([sys.executable, "-c", LISTEN_AND_CONNECT])
    assert subprocess.run(inside, check=False).returncode == 0
    outside = namespace.command([sys.executable, "-c", CONNECT, "192.0.2.1", "80"])
    failed = subprocess.run(outside, check=False, capture_output=True, text=True)
    assert "Network is unreachable" in failed.stderr


def test_namespace_sees_its_processes(namespace: Namespace) -> None:
    """A process started inside is listed under its own id until it ends."""
    with subprocess.Popen(
        namespace.command([sys.executable, "-c", WAIT_FOR_INPUT]), stdin=subprocess.PIPE
    ) as waiting:
        assert within_seconds(5, lambda: set(namespace.processes()) == {waiting.pid})
    assert namespace.remaining_processes() == {}
