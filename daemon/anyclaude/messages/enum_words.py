"""Values of protobuf's enums as words, for people, logs, metrics and the Messages API."""

from typing import Any

_ZERO_SUFFIX = "UNSPECIFIED"


def enum_word(kind: Any, number: int) -> str:
    """`WORKER_STATE_READY` as "ready"; a number this build does not know as "unknown_N".

    `kind` is the enum's descriptor; the two implementations of protobuf have classes of their own.
    """
    value = kind.values_by_number.get(number)
    if value is None:
        return f"unknown_{number}"
    prefix = kind.values_by_number[0].name.removesuffix(_ZERO_SUFFIX)
    return str(value.name.removeprefix(prefix).lower())
