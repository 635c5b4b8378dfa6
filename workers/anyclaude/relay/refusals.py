"""A server's refusal: its status, its words and its error object, wherever the server puts them.

Gateways wrap the words of the server behind them: in `metadata.raw` (OpenRouter), as JSON in a
string, in a list (Google), in `detail` (FastAPI). The innermost words say what is wrong.
"""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

from anyclaude.relay.halves import without_halves

_MAX_MESSAGE_CHARACTERS: Final = 1000
_MAX_DEPTH: Final = 6
# Where an error within another one is, and where its words are.
_INNER: Final = ("error", "errors", "detail", "details", "raw", "metadata", "innererror", "body")
_WORDS: Final = ("message", "msg", "error_message", "error_msg")
# The status that an error's type, code or status stands for, in the words of many servers.
_STATUSES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), status)
    for pattern, status in (
        (r"rate_?limit|too_?many_?requests|throttl|resource_?exhausted|requests_limit", 429),
        (r"insufficient_quota|billing|payment|arrearage|insufficient_(balance|credits)", 402),
        (r"overloaded|engine_overload|unavailable|server_busy|capacity", 529),
        (r"authentication|unauthori[sz]ed|unauthenticated|invalid_?api_?key", 401),
        (r"permission|forbidden|access_?denied", 403),
        (r"not_?found|does_not_exist", 404),
        (r"request_too_large|payload_too_large", 413),
        (r"timeout|deadline", 504),
        (
            r"invalid_?(request|param|argument|value|type|input)|bad_?request|unprocessable|"
            r"validation|unsupported|context_?(length|window|size)|data_?inspection|"
            r"content_?(policy|filter)|string_above|array_above|failed_?precondition",
            400,
        ),
        (r"internal|server_?error|api_error|upstream|stream_error", 500),
    )
)
# Words of refusals whose status says something else.
_TRUE_STATUSES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), status)
    for pattern, status in (
        (r"unexpected endpoint", 404),
        (
            r"balance\W.{0,20}(insufficient|too low|not enough|exhausted|negative)|insufficient "
            r"(account )?(balance|credit|funds)|out of credits|account is in arrears",
            402,
        ),
        (
            r"api[ _-]?key\b.{0,20}(not valid|invalid|missing|not provided|required|expired|"
            r"revoked|incorrect)|(invalid|incorrect|missing|no|expired) (api|auth\w*)[ _-]?(key|"
            r"token|credentials)\b",
            401,
        ),
    )
)
# When to try again, in words.
_TRY_AGAIN: Final = re.compile(
    r"(?:try again|retry|reset\w*)(?: in| after)?:? (?:(?P<hours>\d+)h)?"
    r"(?:(?P<minutes>\d+)m(?!s))?(?:(?P<seconds>[\d.]*\d) ?(?P<unit>ms|s))?",
    re.IGNORECASE,
)
# A server that fails while it renders or checks a request fails because of the request.
_FAULT_OF_REQUEST: Final = re.compile(
    r"jinja|chat.?template|raise_exception|roles? must alternate|system message must be|"
    r"validation error|unexpected role|failed to parse (?:input|messages|grammar|json)",
    re.IGNORECASE,
)


@dataclass(eq=False)
class Refusal(Exception):
    """The server refused the request before it sent content."""

    status: int
    # The server's error message, cut to a readable length, without the key.
    message: str
    # The server's error object.
    details: Mapping[str, Any] = field(default_factory=dict)
    retry_after_seconds: int | None = None

    @classmethod
    def of(cls, status: int, body: bytes, headers: Mapping[str, str], key: str) -> "Refusal":
        details = error_details(body)
        message = details.get("message")
        text = message if isinstance(message, str) else _plain(body, headers)
        wait = retry_after(headers.get("retry-after")) or _wait_in(text)
        return cls(_true_status(status, text, details), shown(text, key), details, wait)

    @classmethod
    def in_stream(cls, details: Mapping[str, Any], key: str) -> "Refusal":
        """A refusal that came in a response of status 200, with the status that it stands for."""
        text = str(details.get("message", ""))
        status = status_of(details) or 500
        return cls(_true_status(status, text, details), shown(text, key), details, _wait_in(text))


def _true_status(status: int, text: str, details: Mapping[str, Any]) -> int:
    """What a refusal is by its words, so that the client is told what helps.

    A server error that the request caused is 400, so that the client does not repeat it.
    """
    if status in (400, 403, 429, 500):
        for pattern, stands_for in _TRUE_STATUSES:
            if pattern.search(text):
                return stands_for
    if status == 429 and status_of(details, words_only=True) == 402:
        # Waiting does not help an account without credit.
        return 402
    if status not in (500, 503):
        return status
    is_invalid = status_of(details, words_only=True) == 400 or _FAULT_OF_REQUEST.search(text)
    return 400 if is_invalid else status


def status_of(details: Mapping[str, Any], *, words_only: bool = False) -> int:
    """The HTTP status that an error object names by number or by word; 0 if it names none."""
    named = [details.get(key) for key in ("code", "status", "status_code", "http_code")]
    for value in named:
        number = int(value) if isinstance(value, str) and value.isdigit() else value
        if not words_only and isinstance(number, int) and 400 <= number <= 599:
            return number
    words = [word for word in (details.get("type"), *named) if isinstance(word, str)]
    text = " ".join(_snake(word) for word in words)
    return next((status for pattern, status in _STATUSES if pattern.search(text)), 0)


def _snake(word: str) -> str:
    """`BadRequestError` as `Bad_Request_Error`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[ .-]+", "_", word)


def shown(text: str, key: str) -> str:
    """`text` as it may be shown: without the key, and not too long."""
    text = without_halves(text)
    safe = text.replace(key, "[key]") if key else text
    return safe if len(safe) <= _MAX_MESSAGE_CHARACTERS else safe[:_MAX_MESSAGE_CHARACTERS] + "..."


def error_details(body: bytes | str) -> dict[str, Any]:
    """The error object of a refusal, from any of the usual places."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(document, list):
        document = {"error": document}
    return details_of(document)


def details_of(document: Any) -> dict[str, Any]:
    """The same for parsed JSON; empty if it holds no error."""
    if not isinstance(document, dict):
        return {}
    is_error = any(document.get(key) for key in ("error", "errors", "detail"))
    if not is_error and document.get("object") != "error":
        has_message = "message" in document or "msg" in document
        if not has_message or "choices" in document or "content" in document:
            return {}
    found = list(_errors(document, 0))
    # Inner fields win, since an outer error is mostly a gateway's; but it may know the status.
    fields = {key: value for each in found for key, value in each.items() if value is not None}
    statuses = (status_of({"code": each.get("code")}) for each in found)
    if "http_code" not in fields and (status := next(filter(None, statuses), 0)):
        fields["http_code"] = status
    texts = dict.fromkeys(text for each in found if (text := _words(each)))
    message = ": ".join(texts) or json.dumps(document)[:_MAX_MESSAGE_CHARACTERS]
    return {**fields, "message": message}


def _errors(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """All error objects within `value`, each before those within it."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        inner = _json_within(value)
        if inner is not None:
            yield from _errors(inner, depth + 1)
        elif value.strip() and depth:
            yield {"message": value}
    elif isinstance(value, list):
        for entry in value[:1]:
            yield from _errors(entry, depth + 1)
    elif isinstance(value, dict):
        yield {k: v for k, v in value.items() if k not in _INNER}
        for key in (*_INNER, "message"):
            inside = value.get(key)
            if key == "message" and not (isinstance(inside, str) and _json_within(inside)):
                continue
            if inside:
                yield from _errors(inside, depth + 1)


def _json_within(text: str) -> Any:
    """The JSON object or list that a string holds, or ends with; None if there is none."""
    for start in ("{", "["):
        at = text.find(start)
        if at < 0:
            continue
        try:
            value = json.loads(text[at:])
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) or (isinstance(value, list) and value and at == 0):
            return value
    return None


def _words(error: Mapping[str, Any]) -> str:
    texts = (error.get(key) for key in _WORDS)
    words = (text for text in texts if isinstance(text, str) and text.strip())
    text = next(words, "")
    return "" if _json_within(text) else text.rstrip(": ")


def _plain(body: bytes, headers: Mapping[str, str]) -> str:
    if "html" in headers.get("content-type", ""):
        return "an HTML page instead of an answer"
    return body.decode(errors="replace").strip() or "no reason given"


def retry_after(value: str | None) -> int | None:
    """The whole seconds that a retry-after header names, as seconds or as a date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(1, math.ceil(seconds)) if math.isfinite(seconds) else None


def _wait_in(text: str) -> int | None:
    """The whole seconds until another try helps, if the words of a refusal name them."""
    found = _TRY_AGAIN.search(text)
    if not found or not any(found.groups()):
        return None
    hours, minutes, seconds = (float(found[name] or 0) for name in ("hours", "minutes", "seconds"))
    if (found["unit"] or "").lower() == "ms":
        seconds /= 1000
    return max(1, math.ceil(hours * 3600 + minutes * 60 + seconds))
