"""The cache diagnostics of a message, as the Messages API spells them.

`null` means that the prompt extends the one it was compared with.
"""

from collections.abc import Mapping
from typing import Any, Final

from anyclaude.messages.enum_words import enum_word
from anyclaude.messages.requests import MessagesRequest
from anyclaude.worker.v1 import worker_pb2 as worker

# Reasons that come without a token count.
_UNCOUNTED: Final = {
    worker.CACHE_MISS_REASON_PREVIOUS_MESSAGE_NOT_FOUND,
    worker.CACHE_MISS_REASON_UNAVAILABLE,
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
    if not reason or reason not in worker.CacheMissReason.values():
        return None
    found: dict[str, Any] = {"type": enum_word(worker.CacheMissReason.DESCRIPTOR, reason)}
    if reason not in _UNCOUNTED:
        found["cache_missed_input_tokens"] = diagnostics.cache_missed_input_tokens
    return {"cache_miss_reason": found}
