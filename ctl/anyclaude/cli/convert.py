"""Protobuf messages as plain values for `--json`.

The keys are the names of the proto's fields. Each is always there: an unset message or optional
field is None. 64-bit integers are numbers, durations are seconds, times are RFC 3339, enums are
lower-case words without their prefix. (protobuf's own JSON mapping differs in each of these.)

This module does not import protobuf, so a verb can import it without slowing `--help` down.
"""

import math
from collections.abc import Mapping, MutableSequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from anyclaude.messages.enum_words import enum_word

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

# The two implementations of protobuf have descriptor classes of their own.
_Descriptor = Any


def to_dict(message: "Message") -> dict[str, Any]:
    """Returns every field of `message`, in the order of declaration."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def word_of(message: "Message", field: str) -> str:
    """The value of one enum field of `message`, as a word."""
    kind = message.DESCRIPTOR.fields_by_name[field].enum_type
    return enum_word(kind, getattr(message, field))


def seconds_since(moment: "Timestamp", now: datetime | None = None) -> float:
    """How long ago `moment` was, by this machine's clock; never negative."""
    then = moment.ToDatetime(tzinfo=UTC)
    return max(0.0, ((now or datetime.now(UTC)) - then).total_seconds())


def _field(message: "Message", field: _Descriptor) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if isinstance(value, MutableSequence):
        return [_value(item, field) for item in value]
    if isinstance(value, Mapping):
        return {str(key): value[key] for key in sorted(value)}
    return _value(value, field)


def _value(value: Any, field: _Descriptor) -> Any:
    if field.message_type:
        return _message(value, field.message_type.full_name)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float):
        # JSON has no NaN and no infinity.
        return value if math.isfinite(value) else None
    return enum_word(field.enum_type, value) if field.enum_type else value


def _message(value: Any, kind: str) -> Any:
    if kind == "google.protobuf.Timestamp":
        return value.ToJsonString()
    if kind == "google.protobuf.Duration":
        return value.seconds + value.nanos / 1e9
    return to_dict(value)
