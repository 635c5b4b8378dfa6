"""Reasoning state: what a server sends with an answer and wants back with the next request.

OpenRouter sends `reasoning_details` of the message, Google's endpoint a `thought_signature` in
`extra_content` of a tool call. Without them, the next request is refused. The relay keeps nothing
between requests, so the client carries the state, in the signature of a thinking block. It goes
back only to the model that it came from, since no other can read it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from anyclaude.messages.hidden_thinking import packed, unpacked

_MARK: Final = "anyclaude-state-"
# Fields of a tool call, or of its function, that hold state.
_CALL_FIELDS: Final = ("extra_content", "thought_signature", "provider_specific_fields")
_JOINED_FIELDS: Final = ("text", "summary")
# The signature of a text comes in a piece of its own.
_PIECE_FIELDS: Final = (*_JOINED_FIELDS, "signature")


@dataclass
class ReasoningState:
    """The state of one answer, as far as it has come."""

    # The model that can read it.
    model: str
    details: list[dict[str, Any]] = field(default_factory=list)
    # `extra_content` of the message itself.
    extra: Any = None
    # By the call's id: fields of the call, and under `function` those of its function.
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    # The data of a `redacted_thinking` block.
    redacted: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.details or self.calls or self.extra or self.redacted)

    def note_message(self, delta: Mapping[str, Any]) -> None:
        details = delta.get("reasoning_details")
        for detail in details if isinstance(details, list) else []:
            if isinstance(detail, dict):
                self._add(detail)
        self.extra = delta.get("extra_content") or self.extra

    def note_call(self, call_id: str, piece: Mapping[str, Any]) -> None:
        found = _call_fields(piece)
        function = piece.get("function")
        if isinstance(function, dict) and (inner := _call_fields(function)):
            found["function"] = inner
        if found:
            self.calls[call_id] = self.calls.get(call_id, {}) | found

    def _add(self, detail: dict[str, Any]) -> None:
        """Joins the pieces of one detail, which have one type and one index."""
        last = self.details[-1] if self.details else {}
        is_piece = all(last.get(key) == detail.get(key) for key in ("type", "index"))
        if not (last and is_piece and any(key in detail for key in _PIECE_FIELDS)):
            if detail != last:
                self.details.append(dict(detail))
            return
        for key, value in detail.items():
            if key in _JOINED_FIELDS and isinstance(value, str):
                last[key] = f"{last.get(key) or ''}{value}"
            elif value is not None:
                last[key] = value

    def signature(self) -> str:
        """The state as the signature of a thinking block."""
        return packed(_MARK, asdict(self))


def _call_fields(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {key: holder[key] for key in _CALL_FIELDS if holder.get(key)}


def state_of(blocks: Iterable[Mapping[str, Any]], model: str) -> ReasoningState | None:
    """The state that a turn of the assistant carries for `model`; the last one holds all."""
    found = [read for block in blocks if (read := read_state(block)) and read.model == model]
    return found[-1] if found else None


def read_state(block: Mapping[str, Any]) -> ReasoningState | None:
    """The state in the signature of a thinking block; None if there is none."""
    found = unpacked(_MARK, block.get("signature"))
    try:
        return None if found is None else ReasoningState(**found)
    except TypeError:
        # A person changed it.
        return None
