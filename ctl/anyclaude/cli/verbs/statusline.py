"""`anyclaudectl statusline`: one line for the `statusLine` setting of Claude Code.

Claude Code runs the command after each turn, with a JSON document about the session on standard
input, and shows the first line that it prints (https://code.claude.com/docs/en/statusline).
"""

import json as json_module
import sys
from typing import TYPE_CHECKING

from anyclaude.cli.command import CommandError, connect
from anyclaude.cli.output import Json, report
from anyclaude.cli.running import phase, tokens_per_second
from anyclaude.cli.units import format_seconds

if TYPE_CHECKING:
    from anyclaude.control.v1.control_pb2 import ListRequestsResponse
    from anyclaude.frontend.v1.frontend_pb2 import RequestRecord

# A session's latest request is among the newest of all sessions.
_REQUESTS = 50


def statusline(json: Json = False) -> None:
    """Print mode, model, reuse and speed of this session, for Claude Code's statusLine setting.

    In Claude Code's settings: "statusLine": {"type": "command", "command": "anyclaudectl
    statusline"}.
    """
    session = _session()
    try:
        with connect() as client:
            status, answer = client.status(), client.requests(_REQUESTS)
    except CommandError as error:
        # Claude Code shows a line, not an exit code.
        report(
            {"line": "anyclaude is not running", "why": error.message},
            "anyclaude is not running",
            json=json,
        )
        return
    words = [status.mode, status.model.id, *_about(answer, session)]
    line = " | ".join(word for word in words if word)
    report({"line": line}, line, json=json)


def _session() -> str:
    """The session id that Claude Code sends; empty if a person runs the command."""
    if sys.stdin.isatty():
        return ""
    try:
        document = json_module.load(sys.stdin)
    except ValueError:
        return ""
    return str(document.get("session_id", "")) if isinstance(document, dict) else ""


def _about(answer: "ListRequestsResponse", session: str) -> list[str]:
    mine = [r for r in answer.running if not session or r.record.identity.session_id == session]
    if mine:
        return [phase(mine[-1])]
    ended = (r for r in answer.records if not session or r.identity.session_id == session)
    record = next((r for r in ended if r.HasField("usage")), None)
    return _cost(record) if record else []


def _cost(record: "RequestRecord") -> list[str]:
    usage = record.usage
    prompt = usage.cache_read_tokens + usage.input_tokens + usage.cache_creation_tokens
    said = [f"{usage.cache_read_tokens:,} of {prompt:,} tokens reused"]
    if record.HasField("time_to_first_token"):
        first = record.time_to_first_token.ToNanoseconds() / 1e9
        said.append(f"first token {format_seconds(first)}")
    if speed := tokens_per_second(record):
        said.append(f"{speed:.0f} tokens/s")
    return said
