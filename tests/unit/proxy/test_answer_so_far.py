"""What was received of an answer, and what is left out when another worker sends it again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.messages.errors import ApiError
from anyclaude.proxy.answer_so_far import AnswerSoFar
from anyclaude.worker.v1 import worker_pb2 as worker
from tests import worker_events as say

MAX_TOKENS = 1000
BLOCKS = st.lists(
    st.tuples(st.sampled_from(["text", "thinking", "partial_json"]), st.text(min_size=1)),
    min_size=1,
    max_size=4,
)


def events(blocks: list[tuple[str, str]], piece_size: int) -> list[worker.GenerateResponse]:
    """An answer, with its texts in pieces of so many characters."""
    made = []
    for index, (kind, text) in enumerate(blocks):
        starts = {"text": say.text_start, "thinking": say.thinking_start}
        made.append(starts[kind](index) if kind in starts else say.tool_start(index, f"id{index}"))
        for at in range(0, len(text), piece_size):
            made.append(say.delta(index, **{kind: text[at : at + piece_size]}))
        if kind == "thinking":
            made.append(say.delta(index, signature=f"random {piece_size}"))
        made.append(say.stop(index))
    for number, event in enumerate(made):
        event.token_ids.append(number)
    return made


def copies(sent: list[worker.GenerateResponse]) -> list[worker.GenerateResponse]:
    """What a worker sends that was given all tokens of these events."""
    again = [worker.GenerateResponse.FromString(event.SerializeToString()) for event in sent]
    for event in again:
        event.ClearField("token_ids")
    return again


def merged(received: list[worker.GenerateResponse]) -> list[tuple[int, str, str]]:
    """The events with adjacent pieces of a text joined, and without signatures' content."""
    whole: list[tuple[int, str, str]] = []
    for event in received:
        kind = str(event.WhichOneof("event"))
        part = getattr(event, kind)
        text = ""
        if kind == "block_delta":
            kind = str(part.WhichOneof("delta"))
            text = "" if kind == "signature" else getattr(part, kind)
        if whole and text and whole[-1][:2] == (part.index, kind):
            text = whole.pop()[2] + text
        whole.append((part.index, kind, text))
    return whole


@given(BLOCKS, st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=3))
def test_deaths_at_any_event_leave_one_answer(
    blocks: list[tuple[str, str]], deaths: list[tuple[int, int]]
) -> None:
    """Wherever workers die, and however the next ones divide the text, all of it comes once."""
    answer = AnswerSoFar(MAX_TOKENS)
    received: list[worker.GenerateResponse] = []
    for count, piece_size in [*deaths, (10_000, 5)]:
        received += answer.receive(copies(events(blocks, piece_size))[:count])
        answer.tokens.append(1)
        assert answer.can_continue
        answer.continue_at_next_worker()

    assert merged(received) == merged(events(blocks, 1000))


@pytest.mark.parametrize(
    "other",
    [
        [say.text_start(), say.delta(text="one Two three")],
        [say.thinking_start(), say.delta(thinking="one two three")],
        [say.tool_start(), say.delta(partial_json="one two three")],
    ],
)
def test_another_answer_is_not_continued(other: list[worker.GenerateResponse]) -> None:
    """If the next worker repeats something else, for example of another model, the answer fails."""
    answer = AnswerSoFar(MAX_TOKENS)
    answer.receive([say.text_start(), say.delta(text="one two")])
    answer.tokens.append(1)
    answer.continue_at_next_worker()
    with pytest.raises(ApiError, match="could not continue"):
        answer.receive(other)


def test_a_shorter_answer_is_not_continued() -> None:
    """A worker that ends before what was received already wrote another answer."""
    answer = AnswerSoFar(MAX_TOKENS)
    answer.receive(copies(events([("text", "all of it")], 4)))
    answer.continue_at_next_worker()
    shorter = [*events([("text", "all")], 4), say.finished()]
    with pytest.raises(ApiError, match="could not continue"):
        answer.receive(shorter)


def test_the_prompt_is_counted_once() -> None:
    """The end of the answer repeats the counts that its beginning announced."""
    answer = AnswerSoFar(MAX_TOKENS)
    tokens = worker.GenerateResponse(token_ids=[1, 2])
    assert answer.receive([say.started(), tokens]) == [say.started()]
    answer.continue_at_next_worker()
    cold = worker.Usage(input_tokens=1, cache_creation_tokens=99)
    last = say.finished(output_tokens=7)
    last.finished.usage.CopyFrom(worker.Usage(input_tokens=1, cache_creation_tokens=99))
    last.finished.usage.output_tokens = 7

    assert answer.receive([say.started(cold), last]) == [say.finished(output_tokens=7)]


def test_an_answer_without_tokens_can_be_continued_before_it_began() -> None:
    """Without tokens nothing is known of the answer: only its beginning is the same."""
    answer = AnswerSoFar(MAX_TOKENS)
    answer.receive([say.started()])
    assert answer.can_continue
    answer.receive([say.text_start()])
    assert not answer.can_continue
