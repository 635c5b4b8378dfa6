"""The `diagnostics` of an answer, as the Messages API spells them (cache diagnostics).

`null` says that the prompt goes on where the one it was compared with ended.
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
# These come without a count.
_NO_ANSWER: Final = {
    worker.CACHE_MISS_REASON_PREVIOUS_MESSAGE_NOT_FOUND: "previous_message_not_found",
    worker.CACHE_MISS_REASON_UNAVAILABLE: "unavailable",
}


def asks_for_diagnostics(request: MessagesRequest) -> tuple[bool, str]:
    """Whether the request asks for them, and the id of the answer it names; empty for none."""
    asked = (request.model_extra or {}).get("diagnostics")
    if not isinstance(asked, Mapping):
        return False, ""
    named = asked.get("previous_message_id")
    return True, named if isinstance(named, str) else ""


def diagnostics_json(diagnostics: worker.Diagnostics) -> dict[str, Any] | None:
    reason = diagnostics.cache_miss_reason
    if reason in _NO_ANSWER:
        return {"cache_miss_reason": {"type": _NO_ANSWER[reason]}}
    if reason not in _REASONS:
        return None
    missed = diagnostics.cache_missed_input_tokens
    return {"cache_miss_reason": {"type": _REASONS[reason], "cache_missed_input_tokens": missed}}
