"""Errors are unchanged after their way through the worker contract."""

import pytest

from anyclaude.messages.errors import ApiError
from anyclaude.worker.v1 import worker_pb2 as worker


@pytest.mark.parametrize(
    "error",
    [
        ApiError(400, "prompt is too long: 2 tokens > 1 maximum", error_type="any_error"),
        ApiError(500, "broken", should_retry=False, error_type="api_error"),
        ApiError(529, "busy", retry_after_seconds=7, error_type="overloaded_error"),
    ],
)
def test_an_error_survives_the_way_from_worker_to_client(error: ApiError) -> None:
    """The front end sends the worker's error: status, type, message and retries."""
    received = ApiError.from_failed(error.to_failed())
    assert vars(received) == vars(error)


@pytest.mark.parametrize("status", [0, 200, 399, 600])
def test_a_status_that_is_no_error_becomes_500(status: int) -> None:
    """A failure whose status is not an error becomes 500."""
    error = ApiError.from_failed(worker.Failed(status=status))
    assert error.status == 500
    assert error.message


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (ApiError(400, "no"), {}),
        (ApiError(529, "busy"), {"retry-after": "2"}),
        (ApiError(429, "busy", retry_after_seconds=9), {"retry-after": "9"}),
        (ApiError(500, "no", should_retry=False), {"x-should-retry": "false"}),
    ],
)
def test_headers_decide_about_retries(error: ApiError, headers: dict[str, str]) -> None:
    """429 and 529 always have retry-after; other errors only if the error has a delay."""
    assert error.headers() == headers
