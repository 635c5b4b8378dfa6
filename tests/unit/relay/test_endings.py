"""Finish reasons of many servers, and what each means for the client."""

import json

import pytest

from anyclaude.relay.dialect import RefusedInStreamError
from anyclaude.relay.endings import Ending, ending_of
from anyclaude.relay.sse import ServerEvent
from tests.integration.relay_process import fold
from tests.unit.relay.readers import chat_reader, message_reader

REASONS = {
    Ending.ORDINARY: "stop eos eos_token end_turn STOP stop_sequence tool_calls "
    "function_call tool_use "
    "eosFound stopStringFound toolCalls COMPLETE finished done unknown null",
    Ending.CUT: "length max_tokens MAX_TOKENS max_output_tokens maxPredictedTokensReached "
    "max_completion_tokens token_limit truncated incomplete LENGTH num_predict "
    "budget_exceeded repetition",
    Ending.WINDOW: "model_length model_context_window_exceeded contextLengthReached "
    "context_length_exceeded context-window-exceeded input_length kv_cache_full",
    Ending.REFUSED: "content_filter sensitive SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII "
    "refusal content_filtered guardrail_intervened IMAGE_SAFETY content-filter ERROR_TOXIC "
    "MODEL_ARMOR restricted unsafe harm_category",
    Ending.FAILED: "network_error insufficient_system_resource abort error malformed_function_call "
    "MALFORMED_FUNCTION_CALL cancelled timeout timed_out UNEXPECTED_TOOL_CALL server_error failed "
    "TOO_MANY_TOOL_CALLS OTHER modelUnloaded engine_overloaded MALFORMED_RESPONSE rate_limited "
    "preempted evicted oom out_of_memory worker_died killed load invalid_tool_call",
}
ROWS = [(reason, ending) for ending, reasons in REASONS.items() for reason in reasons.split()]
STOP_REASONS = {
    Ending.ORDINARY: "end_turn",
    Ending.CUT: "max_tokens",
    Ending.WINDOW: "model_context_window_exceeded",
    Ending.REFUSED: "refusal",
}


def chat_answer(reason):
    read = chat_reader()
    choice = {"delta": {"content": "half"}, "finish_reason": reason}
    read.feed(ServerEvent("", json.dumps({"choices": [choice]})))
    read.finish()
    return fold(read.take())


def message_answer(reason):
    read = message_reader()
    for event in (
        {"type": "message_start", "message": {"usage": {"input_tokens": 1}}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": "half"},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ):
        read.feed(ServerEvent("", json.dumps(event)))
    read.finish()
    return fold(read.take())


@pytest.mark.parametrize(("reason", "ending"), ROWS)
def test_each_reason(reason, ending):
    """A reason of any server means the same whatever its capitals and separators are."""
    assert ending_of(reason) is ending


@pytest.mark.parametrize("answer", [chat_answer, message_answer])
@pytest.mark.parametrize(("reason", "ending"), ROWS[::4])
def test_what_the_client_gets(answer, reason, ending):
    """Half an answer is never an ordinary end in either dialect."""
    if ending is Ending.FAILED:
        with pytest.raises(RefusedInStreamError, match=reason):
            answer(reason)
    else:
        assert answer(reason)["stop_reason"] == STOP_REASONS[ending]
