"""What can be wrong with an export or import, by who has to do something about it."""

from enum import Enum, auto


class Fault(Enum):
    # The file or the cache that was named is not there.
    MISSING = auto()
    # The file is not, byte for byte, what an export writes.
    DAMAGED = auto()
    # It is sound and not for here, or may not be written there.
    REFUSED = auto()
    # There is no room for it.
    TOO_LARGE = auto()


class ExchangeError(Exception):
    """The export or import did not come about; the message says why, what stays, what to do."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def damaged(path: object, why: str) -> ExchangeError:
    return ExchangeError(
        Fault.DAMAGED,
        f"{path} is not a whole export: {why}. Nothing was imported. Export it again, or copy it "
        "again from where it came.",
    )
