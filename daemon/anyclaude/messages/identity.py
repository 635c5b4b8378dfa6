"""The identity of a request: session, agent and class, from its headers and metadata.

Prompt text is not used, since it changes between turns of one conversation. A value that is not
safe as the name of a cache or in a log line is replaced by its digest.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from anyclaude.messages.requests import MessagesRequest
from anyclaude.worker.v1 import worker_pb2 as worker

SESSION_HEADER: Final = "x-claude-code-session-id"
AGENT_HEADER: Final = "x-claude-code-agent-id"
PARENT_AGENT_HEADER: Final = "x-claude-code-parent-agent-id"
CLASS_HEADER: Final = "x-claude-code-request-class"

_CLASSES: Final = {
    "main": worker.REQUEST_CLASS_MAIN,
    "subagent": worker.REQUEST_CLASS_SUBAGENT,
    # Agents that a script runs have prompts of their own, as subagents do.
    "workflow": worker.REQUEST_CLASS_SUBAGENT,
    "compaction": worker.REQUEST_CLASS_COMPACTION,
    "auxiliary": worker.REQUEST_CLASS_UTILITY,
}
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
# Up to Claude Code 2.1.77: user_<hex>_account_<uuid>_session_<uuid>.
_LEGACY_SESSION: Final = re.compile(r"_session_([0-9A-Za-z-]+)$")
_CLASSIFIER_STOP: Final = "</block>"
# Within its user agent. A session id alone is no sign of it: others send one as well.
_CLAUDE_CODE: Final = "claude-cli/"
# Claude Code's title and probe calls are much shorter; its main prompts are ten times as long.
_SHORT_CHARACTERS: Final = 4000


def identify(headers: Mapping[str, str], request: MessagesRequest | None) -> worker.Identity:
    """The identity of one Messages request; `request` is None in a passthrough mode.

    `headers` are looked up with lower-case names.
    """
    session, agent = headers.get(SESSION_HEADER, ""), headers.get(AGENT_HEADER, "")
    request_class = _CLASSES.get(headers.get(CLASS_HEADER, "").strip().lower())
    if request is not None:
        session = session or _session_of(request.metadata)
        if request_class is None:
            agents = headers.get("user-agent", "")
            request_class = _class_of(
                request, from_claude_code=_CLAUDE_CODE in agents, agent=bool(agent)
            )
    return worker.Identity(
        session_id=safe_name(session),
        agent_id=safe_name(agent),
        parent_agent_id=safe_name(headers.get(PARENT_AGENT_HEADER, "")),
        request_class=request_class,
    )


def _session_of(metadata: Mapping[str, Any] | None) -> str:
    user_id = (metadata or {}).get("user_id")
    if not isinstance(user_id, str):
        return ""
    legacy = _LEGACY_SESSION.search(user_id)
    return legacy.group(1) if legacy else _session_of_json(user_id)


def _session_of_json(user_id: str) -> str:
    if not user_id.startswith("{"):
        return ""
    try:
        session = json.loads(user_id).get("session_id")
    except (ValueError, RecursionError):
        return ""
    return session if isinstance(session, str) else ""


def safe_name(name: str) -> str:
    """`name`, or its digest if it is not safe as the name of a cache or in a log line."""
    if not name or _SAFE_NAME.fullmatch(name):
        return name
    return "sha256-" + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _class_of(
    request: MessagesRequest, *, from_claude_code: bool, agent: bool
) -> worker.RequestClass:
    if _is_utility(request, from_claude_code=from_claude_code):
        return worker.REQUEST_CLASS_UTILITY
    return worker.REQUEST_CLASS_SUBAGENT if agent else worker.REQUEST_CLASS_MAIN


def _is_utility(request: MessagesRequest, *, from_claude_code: bool) -> bool:
    # Utility prompts are not cached, so a warm-up or the short beginning of a conversation must not
    # be classed as one.
    if request.max_tokens == 0:
        return False
    if _CLASSIFIER_STOP in request.stop_sequences:
        return True
    if request.tools:
        return False
    if from_claude_code and _wants_json(request):
        return True
    return _is_short(request) and (from_claude_code or request.max_tokens == 1)


def _wants_json(request: MessagesRequest) -> bool:
    output_format = (request.output_config or {}).get("format")
    return isinstance(output_format, Mapping) and output_format.get("type") == "json_schema"


def _is_short(request: MessagesRequest) -> bool:
    if len(request.messages) != 1:
        return False
    return _characters(request.system) + _characters(request.messages[0].content) < (
        _SHORT_CHARACTERS
    )


def _characters(content: str | list[dict[str, Any]]) -> int:
    if isinstance(content, str):
        return len(content)
    texts = [block.get("text", "") for block in content]
    return sum(len(text) for text in texts if isinstance(text, str))
