"""Where servers put the words and the class of a refusal, and what the client is told to do."""

import json

import pytest

from anyclaude.relay.failures import UpstreamFault, explain_refusal
from anyclaude.relay.quirks import Quirks
from anyclaude.relay.refusals import Refusal, details_of, error_details
from tests.unit.relay.test_failures import party

WHY = "bad schema"
RAW = json.dumps({"error": {"message": WHY}})


@pytest.mark.parametrize(
    "document",
    [
        {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": RAW}}},
        {"error": {"message": "Provider returned error", "metadata": {"raw": WHY}}},
        {"error": {"message": "Provider returned error", "metadata": {"raw": {"error": WHY}}}},
        {"error": {"message": "Provider returned error", "metadata": {"raw": json.dumps(RAW)}}},
        {"error": {"message": f"Error from provider: {RAW}", "type": "api_error"}},
        {"error": RAW},
        {"detail": {"error": {"message": WHY}}},
        {"detail": [{"type": "value_error", "loc": ["body"], "msg": WHY}]},
        [{"error": {"code": 400, "message": WHY, "status": "INVALID_ARGUMENT"}}],
        {"error": {"message": "Invalid", "innererror": {"message": WHY}}},
        {"errors": [{"message": WHY}]},
        {"error": {"message": WHY, "errors": [{"message": WHY, "reason": "badRequest"}]}},
        {"code": "InvalidParameter", "message": WHY, "request_id": "r"},
        {"type": "error", "error": {"type": "invalid_request_error", "message": WHY}},
    ],
)
def test_the_innermost_words_are_shown(document):
    """The reason is shown wherever a gateway wraps it, and only once."""
    refusal = Refusal.of(400, json.dumps(document).encode(), {}, "")
    assert refusal.message.count(WHY) == 1


@pytest.mark.parametrize(
    ("details", "status"),
    [
        ({"code": 400}, 400),
        ({"code": "400"}, 400),
        ({"status": 429}, 429),
        ({"type": "invalid_request_error", "code": None}, 400),
        ({"type": "BadRequestError"}, 400),
        ({"type": "rate_limit_error", "code": "rate_limit_exceeded"}, 429),
        ({"type": "overloaded_error"}, 529),
        ({"type": "authentication_error"}, 401),
        ({"code": "invalid_api_key", "type": "invalid_request_error"}, 401),
        ({"type": "permission_error"}, 403),
        ({"type": "not_found_error"}, 404),
        ({"code": "model_not_found", "type": "invalid_request_error"}, 404),
        ({"status": "RESOURCE_EXHAUSTED"}, 429),
        ({"status": "INVALID_ARGUMENT"}, 400),
        ({"status": "UNAVAILABLE"}, 529),
        ({"code": "Throttling.RateQuota"}, 429),
        ({"code": "InvalidParameter"}, 400),
        ({"code": "Arrearage"}, 402),
        ({"code": "insufficient_quota", "type": "insufficient_quota"}, 402),
        ({"type": "timeout_error"}, 504),
        ({"type": "server_error"}, 500),
        ({"code": 502}, 502),
        ({"type": "api_error"}, 500),
        ({}, 500),
    ],
)
def test_a_refusal_in_a_stream_keeps_its_class(details, status):
    """An error in a response of status 200 has the status that its own fields stand for."""
    found = details_of({"error": {"message": WHY, **details}})
    assert Refusal.in_stream(found, "").status == status


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, {"type": "invalid_request_error", "message": WHY}),
        (500, {"type": "BadRequestError", "message": WHY}),
        (500, {"message": "Jinja Exception: Conversation roles must alternate"}),
        (500, {"message": "1 validation error for ChatCompletionRequest"}),
        (500, {"message": "failed to parse grammar"}),
        (503, {"code": "invalid_parameter_error", "message": WHY}),
        (422, {"message": WHY}),
        (400, {"message": WHY}),
    ],
)
def test_an_invalid_request_is_no_fault_of_the_server(status, error):
    """A refusal that the request caused does not count for the breaker, whatever its status."""
    refusal = Refusal.of(status, json.dumps({"error": error}).encode(), {}, "")
    explained = explain_refusal(refusal, party("vllm"), model="m", max_tokens=1)
    assert not isinstance(explained, UpstreamFault)
    assert explained.status == 400


@pytest.mark.parametrize(
    ("kind", "status", "message", "expected", "words"),
    [
        ("lmstudio", 401, "bad key", 401, "api_key_file"),
        ("openrouter", 402, "Insufficient credits", 402, "add credit"),
        ("openrouter", 429, "You exceeded your current quota", 429, "limits requests"),
        ("openrouter", 403, "Your input was flagged", 403, "does not allow this request"),
        (
            "openrouter",
            404,
            "No endpoints found that support tool use.",
            404,
            "another model",
        ),
        ("openrouter", 404, "No endpoints found matching your data policy", 404, "privacy"),
        ("openrouter", 400, "foo/bar is not a valid model ID", 404, ".model to one of"),
        ("openrouter", 404, "No allowed providers are available", 404, "providers"),
        ("ollama", 404, 'model "x" not found, try pulling it first', 404, "ollama pull"),
        ("vllm", 404, "The model `x` does not exist.", 404, ".model to one of"),
        ("vllm", 404, "Not Found", 404, "base_url"),
        ("vllm", 405, "Method Not Allowed", 404, "base_url"),
        ("lmstudio", 404, "Unexpected endpoint or method. (POST /v2)", 404, "base_url"),
        ("openrouter", 400, "The model `m` has been decommissioned", 404, ".model to one of"),
        ("openrouter", 400, "API key not valid. Please pass a valid API key.", 401, "api_key_file"),
        ("vllm", 400, "Missing API key", 401, "api_key_file"),
        ("openrouter", 400, "Insufficient Balance", 402, "add credit"),
        ("openrouter", 403, "Sorry, your account balance is insufficient", 402, "add credit"),
        ("openrouter", 429, "Insufficient balance or no resource package", 402, "add credit"),
        ("openrouter", 400, "Your credit balance is too low", 402, "add credit"),
        ("openrouter", 403, "It requires moderation, and your input was flagged", 403, "filter"),
        ("vllm", 404, "Cannot POST /v1/chat/completions", 404, "base_url"),
        ("vllm", 404, "The requested URL was not found on the server.", 404, "base_url"),
        ("vllm", 404, "Route POST:/v1/messages not found", 404, "base_url"),
        ("lmstudio", 500, "Unexpected endpoint or method. (POST /v2)", 404, "base_url"),
        ("vllm", 413, "Request Entity Too Large", 413, "/compact"),
        ("llama-cpp", 503, "Loading model", 529, "still loading"),
        ("openrouter", 503, "Model m is currently loading", 529, "still loading"),
        ("vllm", 520, "origin error", 529, "unavailable"),
        ("openrouter", 498, "Flex tier capacity exceeded", 529, "unavailable"),
    ],
)
def test_the_advice_fits_the_refusal(kind, status, message, expected, words):
    """Each refusal says what helps against it: a key, credit, another model or another address."""
    refusal = Refusal.of(status, json.dumps({"error": {"message": message}}).encode(), {}, "")
    error = explain_refusal(refusal, party(kind), model="m", max_tokens=1)
    assert error.status == expected
    assert words in error.message
    assert message in error.message or "still loading" in words


def test_a_model_that_cannot_be_loaded_is_not_waited_for():
    """A failed load says why; it is not taken for a load that goes on."""
    why = 'Failed to load model "m". Error: Error loading model.'
    error = explain_refusal(Refusal(400, why), party("lmstudio"), model="m", max_tokens=1)
    assert error.status == 400
    assert why in error.message


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached. Please try again in 6.2s.", 7),
        ("Rate limit reached. Please try again in 1m30s.", 90),
        ("Limit reached, try again in 1h2m", 3720),
        ("Please retry in 21.3s.", 22),
        ("Please try again in 250ms", 1),
        ("Please try again later.", None),
        ("Please retry the request", None),
    ],
)
def test_how_long_to_wait_is_read_from_the_words(message, seconds):
    """Without a retry-after header, the words of the refusal say when another try helps."""
    body = json.dumps({"error": {"message": message}}).encode()
    assert Refusal.of(429, body, {}, "").retry_after_seconds == seconds
    assert Refusal.of(429, body, {"retry-after": "3"}, "").retry_after_seconds == 3


def test_an_account_without_credit_is_not_asked_to_wait():
    """A 429 for lack of credit is reported as such, since no retry helps."""
    body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    refusal = Refusal.of(429, json.dumps(body).encode(), {}, "")
    error = explain_refusal(refusal, party("openrouter"), model="m", max_tokens=1)
    assert (error.status, error.should_retry) == (402, False)


@pytest.mark.parametrize("place", [[{}], [["top_k"]], 7, None, "top_k", {"a": 1}, ["body", None]])
def test_odd_places_of_a_field(place):
    """Whatever an error object says about the place of a fault, the refusal can be read."""
    document = {"detail": [{"loc": place, "msg": "top_k is not supported \ud83d"}]}
    refusal = Refusal.of(422, json.dumps(document).encode(), {}, "")
    learned = Quirks().learn(refusal.message, {"top_k": 1}, refusal.details)
    assert learned is not None
    assert learned.dropped == {"top_k"}
    explain_refusal(refusal, party("vllm"), model="m", max_tokens=1).to_failed()


def test_a_body_that_is_no_error_has_no_details():
    """An ordinary response is not mistaken for a refusal."""
    assert error_details(b'{"choices": [], "message": "x"}') == {}
    assert error_details(b"[" * 10_000) == {}
