"""Worker events that are ready together travel as one message.

A message takes a wake-up of each process on its way, some tenths of a millisecond; what it says
takes next to nothing.
"""

from collections.abc import Iterable, Iterator

from anyclaude.worker.v1 import worker_pb2 as worker


def joined(events: Iterable[worker.GenerateResponse]) -> Iterator[worker.GenerateResponse]:
    """`events` as one message, or none. Those before an error go out before it is raised."""
    ready: list[worker.GenerateResponse] = []
    try:
        ready.extend(events)
    except Exception:
        # Whatever it is, what was read before it has been read.
        yield from _message(ready)
        raise
    yield from _message(ready)


def _message(ready: list[worker.GenerateResponse]) -> Iterator[worker.GenerateResponse]:
    if ready:
        ready[0].then.extend(ready[1:])
        yield ready[0]


def apart(message: worker.GenerateResponse) -> list[worker.GenerateResponse]:
    """The events of a message, in order."""
    if not message.then:
        return [message]
    first = worker.GenerateResponse()
    first.CopyFrom(message)
    first.ClearField("then")
    return [first, *message.then]
