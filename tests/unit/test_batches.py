"""Events that travel together arrive one by one, in order, and before what ended them."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.messages.batches import apart, joined
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say

_EVENTS = st.lists(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=8).map(
        lambda text: say.delta(0, text=text)
    )
    | st.sampled_from([say.started(), say.text_start(), say.stop()])
)


def copies(events: list[worker.GenerateResponse]) -> list[worker.GenerateResponse]:
    return [worker.GenerateResponse.FromString(event.SerializeToString()) for event in events]


@given(_EVENTS)
def test_apart_undoes_joined(events: list[worker.GenerateResponse]) -> None:
    """One message at the most, and its events are those that were given."""
    messages = list(joined(copies(events)))
    assert len(messages) == (1 if events else 0)
    assert [event for message in messages for event in apart(message)] == events


def test_an_error_comes_after_what_was_ready_before_it() -> None:
    """Nothing that was read is lost because what follows it cannot be."""

    def read() -> Iterator[worker.GenerateResponse]:
        yield say.started()
        yield say.text_start()
        raise ValueError("unreadable")

    messages = joined(read())
    assert apart(next(messages)) == [say.started(), say.text_start()]
    with pytest.raises(ValueError, match="unreadable"):
        next(messages)
