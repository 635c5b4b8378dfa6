"""Who may send requests, and how many at once.

Only loopback hosts and origins are served, and only clients with the token if one is set. A web
page can make a browser send requests to 127.0.0.1. The Origin header shows that; if the page
rebinds its own host name to 127.0.0.1, the Host header shows it. There are no CORS headers.
"""

import hmac
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from anyclaude.messages.errors import ApiError, overloaded

_LOOPBACK: Final = r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?"
_HOST: Final = re.compile(_LOOPBACK, re.IGNORECASE)
_ORIGIN: Final = re.compile(r"https?://" + _LOOPBACK, re.IGNORECASE)
# Paths that need no token.
_OPEN_PATHS: Final = frozenset({"/", "/api/hello", "/health/live", "/health/ready"})
_RETRY_AFTER_SECONDS: Final = 2


class TokenError(Exception):
    """The token file cannot be used."""


def read_token(file: str) -> bytes | None:
    """The token that requests must present, or None when no file is set.

    Raises:
        TokenError: the file is missing, unreadable or empty.
    """
    if not file:
        return None
    try:
        token = Path(file).expanduser().read_bytes().strip()
    except OSError as error:
        raise TokenError(
            f"server.auth_token_file = {file} cannot be read: {error.strerror}. "
            "Create it with a secret of your own, or unset the key."
        ) from None
    if not token:
        raise TokenError(f"server.auth_token_file = {file} is empty. Write a secret into it.")
    return token


class AccessChecks:
    def __init__(self, token: bytes | None) -> None:
        self._token = token

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Returns when the request may be served.

        Raises:
            ApiError: 403 for a foreign host or origin, 401 for a missing or wrong token.
        """
        if not _HOST.fullmatch(headers.get("host", "")):
            raise ApiError(403, "The Host header must name this machine: 127.0.0.1 or localhost.")
        origin = headers.get("origin")
        if origin is not None and not _ORIGIN.fullmatch(origin):
            raise ApiError(403, "Requests from web pages of other origins are not answered.")
        if self._token is not None and path not in _OPEN_PATHS:
            _check_token(self._token, headers)


def _check_token(token: bytes, headers: Mapping[str, str]) -> None:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    offered = [headers.get("x-api-key", "")]
    if scheme.lower() == "bearer":
        offered.append(bearer.strip())
    # Every candidate is compared, so that the time taken reveals nothing.
    matches = [hmac.compare_digest(key.encode("latin-1"), token) for key in offered]
    if not any(matches):
        raise ApiError(
            401,
            "This service asks for a token: send the content of server.auth_token_file "
            "as a Bearer token (ANTHROPIC_AUTH_TOKEN) or as x-api-key.",
        )


class Admission:
    """Limits how many requests run at once."""

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self._running = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Counts one request as running.

        Raises:
            ApiError: 529, the maximum is reached.
        """
        if self._running >= self._max_requests:
            raise overloaded(
                f"{self._running} requests are in progress, the maximum (server.max_requests).",
                _RETRY_AFTER_SECONDS,
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
