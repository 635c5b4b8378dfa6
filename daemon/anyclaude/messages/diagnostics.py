"""The cache diagnostics of a message, as the Messages API spells them.

`null` means that the prompt extends the one it was compared with.
"""

from collections.abc import Mapping
from typing import Any, Final

from anyclaude.messages.requests import MessagesRequest
from anyclaude.worker.v1 import worker_pb2 as worker

_REASONS: Final = {
    worker.CACHE_MISS_REASON_MODEL_CHANGED: "model_changed",
    worker.CACHE_MISS_REASON_SYSTEM_CHANGED: "system_changed",
    worker.CACHE_MISS_REASON_TOOLS_CHANGED: "tools_changed",
    worker.CACHE_MISS_REASON_MESSAGES_CHANGED: "messages_changed",
}
# Reasons that come without a token count.
_UNCOUNTED: Final = {
    worker.CACHE_MISS_REASON_PREVIOUS_MESSAGE_NOT_FOUND: "previous_message_not_found",
    worker.CACHE_MISS_REASON_UNAVAILABLE: "unavailable",
}


def asks_for_diagnostics(request: MessagesRequest) -> tuple[bool, str]:
    """Whether the request wants diagnostics, and the id of the message it names, or ""."""
    wanted = (request.model_extra or {}).get("diagnostics")
    if not isinstance(wanted, Mapping):
        return False, ""
    named = wanted.get("previous_message_id")
    return True, named if isinstance(named, str) else ""


def diagnostics_json(diagnostics: worker.Diagnostics) -> dict[str, Any] | None:
    reason = diagnostics.cache_miss_reason
    if reason in _UNCOUNTED:
        return {"cache_miss_reason": {"type": _UNCOUNTED[reason]}}
    if reason not in _REASONS:
        return None
    missed = diagnostics.cache_missed_input_tokens
    return {"cache_miss_reason": {"type": _REASONS[reason], "cache_missed_input_tokens": missed}}
