"""Errors of the Messages API: one exception, as an HTTP envelope and as a worker's `Failed`.

The client acts on status, type and, for overflow, on the exact sentence (Claude Code compacts the
conversation on "prompt is too long: N tokens > M maximum"), so only this module writes them.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from anyclaude.worker.v1 import worker_pb2 as worker

# https://docs.claude.com/en/api/errors
TYPE_BY_STATUS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}

# Clients wait at least this long after 429 and 529, which always carry the header.
_RETRY_AFTER_SECONDS: Final = 2
_ALWAYS_WITH_RETRY_AFTER: Final = (429, 529)


@dataclass(eq=False)
class ApiError(Exception):
    """A request that ends in an error the client can act on."""

    status: int
    message: str
    # Whole seconds; None sends a retry-after header with 429 and 529 alone.
    retry_after_seconds: int | None = None
    # False tells the client's SDK not to retry, because the user has to act first.
    should_retry: bool | None = None
    error_type: str = ""
    # What programs read instead of the message.
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_failed(cls, failed: worker.Failed) -> "ApiError":
        """The error that a worker reported."""
        return cls(
            failed.status if 400 <= failed.status <= 599 else 500,
            failed.message or "The model worker gave no reason.",
            retry_after_seconds=failed.retry_after_seconds or None,
            should_retry=failed.should_retry if failed.HasField("should_retry") else None,
            error_type=failed.type,
        )

    def to_failed(self) -> worker.Failed:
        """The same error as a worker reports it."""
        failed = worker.Failed(
            status=self.status,
            type=self.type,
            message=self.message,
            retry_after_seconds=self.retry_after_seconds or 0,
        )
        if self.should_retry is not None:
            failed.should_retry = self.should_retry
        return failed

    @property
    def type(self) -> str:
        return self.error_type or TYPE_BY_STATUS.get(self.status, "api_error")

    def headers(self) -> dict[str, str]:
        """The headers that decide whether and when a client tries again; seconds are whole."""
        headers: dict[str, str] = {}
        seconds = self.retry_after_seconds
        if seconds is None and self.status in _ALWAYS_WITH_RETRY_AFTER:
            seconds = _RETRY_AFTER_SECONDS
        if seconds is not None:
            headers["retry-after"] = str(seconds)
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        return headers

    def envelope(self, request_id: str) -> dict[str, Any]:
        """The JSON body, and the data of a mid-stream `error` event."""
        error: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.details:
            error["details"] = dict(self.details)
        return {"type": "error", "error": error, "request_id": request_id}

    def http_response(self) -> bytes:
        """A whole HTTP/1.1 response, for a client that no application answers; it is the last."""
        request_id = new_request_id()
        body = json.dumps(self.envelope(request_id)).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "request-id": request_id,
            "connection": "close",
            **self.headers(),
        }
        lines = [f"HTTP/1.1 {self.status} {self.type}", *map(": ".join, headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def __str__(self) -> str:
        return f"{self.status} {self.type}: {self.message}"


def new_request_id() -> str:
    return "req_" + secrets.token_hex(12)


def invalid_request(message: str) -> ApiError:
    return ApiError(400, message)


def thread_unsupported() -> ApiError:
    """A conversation was to be stored; on this error code, SDKs can go on without that."""
    return ApiError(
        400,
        "thread: conversations are not stored here; send all messages with every request, without "
        "`thread`",
        details={"error_code": "thread_unsupported_request", "unsupported": ["thread"]},
    )


def prompt_too_long(prompt_tokens: int, window_tokens: int, advice: str = "") -> ApiError:
    """The prompt alone fills the context window; `advice` is a sentence on what to do."""
    message = f"prompt is too long: {prompt_tokens} tokens > {window_tokens} maximum"
    return ApiError(400, f"{message}. {advice}" if advice else message)


def max_tokens_too_large(prompt_tokens: int, max_tokens: int, window_tokens: int) -> ApiError:
    """The prompt fits, but not with `max_tokens`; clients try again with fewer."""
    return ApiError(
        400,
        f"input length and `max_tokens` exceed context limit: {prompt_tokens} + {max_tokens} > "
        f"{window_tokens}, decrease input length or `max_tokens` and try again",
    )


def overloaded(message: str, retry_after_seconds: int) -> ApiError:
    """The request is fine, and the client should send it again later."""
    return ApiError(529, message, retry_after_seconds=retry_after_seconds)
