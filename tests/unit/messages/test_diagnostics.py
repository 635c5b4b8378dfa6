"""The Messages API's cache diagnostics: which requests want them, and how they are spelled."""

import pytest
from anthropic.types.beta import BetaMessage

from anyclaude.messages.diagnostics import asks_for_diagnostics
from anyclaude.messages.events import EventMachine
from anyclaude.worker.v1 import worker_pb2 as worker
from tests.models.requests import request, user

_COUNTED = {
    worker.CACHE_MISS_REASON_MODEL_CHANGED: "model_changed",
    worker.CACHE_MISS_REASON_SYSTEM_CHANGED: "system_changed",
    worker.CACHE_MISS_REASON_TOOLS_CHANGED: "tools_changed",
    worker.CACHE_MISS_REASON_MESSAGES_CHANGED: "messages_changed",
}
_UNCOUNTED = {
    worker.CACHE_MISS_REASON_PREVIOUS_MESSAGE_NOT_FOUND: "previous_message_not_found",
    worker.CACHE_MISS_REASON_UNAVAILABLE: "unavailable",
}


@pytest.mark.parametrize(
    ("diagnostics", "asked"),
    [
        ({"previous_message_id": "msg_1"}, (True, "msg_1")),
        ({"previous_message_id": None}, (True, "")),
        ({"previous_message_id": 7}, (True, "")),
        ({}, (True, "")),
        ("yes", (False, "")),
        (None, (False, "")),
    ],
)
def test_which_requests_want_diagnostics(diagnostics: object, asked: tuple[bool, str]) -> None:
    """A request with a diagnostics object wants them; any other value is ignored."""
    assert asks_for_diagnostics(request(user("hi"), diagnostics=diagnostics)) == asked


def _started(diagnostics: worker.Diagnostics | None) -> dict[str, object]:
    started = worker.Started(usage=worker.Usage(input_tokens=1), diagnostics=diagnostics)
    event = EventMachine("msg_1", "any").feed(worker.GenerateResponse(started=started))[0]
    message: dict[str, object] = event["message"]
    return message


def test_reasons_are_the_apis() -> None:
    """The official client reads each reason, with a count if the API has one."""
    for reason, word in (_COUNTED | _UNCOUNTED).items():
        message = _started(
            worker.Diagnostics(cache_miss_reason=reason, cache_missed_input_tokens=9)
        )
        read = BetaMessage.model_validate(message).diagnostics
        assert read is not None
        assert read.cache_miss_reason is not None
        assert read.cache_miss_reason.type == word
        assert getattr(read.cache_miss_reason, "cache_missed_input_tokens", None) == (
            9 if reason in _COUNTED else None
        )


def test_no_divergence_is_null_and_the_field_is_optional() -> None:
    """Without a divergence the field is null; in other responses it is absent."""
    assert _started(worker.Diagnostics())["diagnostics"] is None
    assert "diagnostics" not in _started(None)


def test_every_reason_is_spelled() -> None:
    """Every reason of the contract has a name in the API."""
    spelled = {*_COUNTED, *_UNCOUNTED, worker.CACHE_MISS_REASON_UNSPECIFIED}
    assert spelled == set(worker.CacheMissReason.values())
