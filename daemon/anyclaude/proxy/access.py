"""Who may send requests, and how many at once.

Loopback hosts, loopback origins and the pages of desktop apps are served, and whatever
`server.allowed_hosts` and `server.allowed_origins` add; only clients with the token if one is set.
A web page can make a browser send requests to 127.0.0.1. The Origin header shows that; if the page
rebinds its own host name to 127.0.0.1, the Host header shows it. The origin `null` is not served
unless the settings name it, since any web page can send from a frame with that origin.

Pages of a served origin also get the CORS headers (Fetch standard, section 3.3) with which their
browser lets them read the response.
"""

import hmac
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from anyclaude.messages.errors import ApiError, overloaded
from anyclaude.messages.turnover import Turnover

_LOOPBACK: Final = r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?"
_HOST: Final = re.compile(_LOOPBACK, re.IGNORECASE)
_ORIGIN: Final = re.compile(r"https?://" + _LOOPBACK, re.IGNORECASE)
# No web site has an origin of these schemes: they are those of pages inside installed programs.
_APP_ORIGIN: Final = re.compile(
    r"(app|tauri|vscode-webview|vscode-file|capacitor)://[A-Za-z0-9._~:-]*", re.IGNORECASE
)
_PORT: Final = re.compile(r":\d{1,5}$")
_ANY_OF_SCHEME: Final = "://*"
# Paths that need no token.
_OPEN_PATHS: Final = frozenset({"/", "/api/hello", "/health/live", "/health/ready"})
_PREFLIGHT_SECONDS: Final = "7200"


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
    def __init__(
        self, token: bytes | None, hosts: Iterable[str] = (), origins: Iterable[str] = ()
    ) -> None:
        """
        Args:
            token: what requests must present; None for nothing.
            hosts: names that the Host header may have besides those of loopback, without a port.
            origins: origins to serve besides loopback and apps; `scheme://*` is any of the scheme.
        """
        self._token = token
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Returns when the request may be served.

        Raises:
            ApiError: 403 for a foreign host or origin, 401 for a missing or wrong token.
        """
        self.check_source(headers)
        if self._token is not None and path not in _OPEN_PATHS:
            _check_token(self._token, headers)

    def check_source(self, headers: Mapping[str, str]) -> None:
        """Checks the host and the origin only: a browser's preflight has no token.

        Raises:
            ApiError: 403 for a foreign host or origin.
        """
        host = headers.get("host", "")
        if not self._serves_host(host):
            raise ApiError(
                403,
                "The Host header must name this machine: 127.0.0.1 or localhost. To serve "
                "another name, set server.allowed_hosts in the settings of anyclaude.",
            )
        origin = headers.get("origin")
        if origin is not None and not self._serves_origin(origin):
            raise ApiError(
                403,
                "Requests from pages of other origins are not answered. To serve this one, set "
                "server.allowed_origins in the settings of anyclaude.",
            )

    def _serves_host(self, host: str) -> bool:
        return bool(_HOST.fullmatch(host)) or _PORT.sub("", host).lower() in self._hosts

    def _serves_origin(self, origin: str) -> bool:
        if _ORIGIN.fullmatch(origin) or _APP_ORIGIN.fullmatch(origin):
            return True
        lowered = origin.lower()
        scheme, is_url, _ = lowered.partition("://")
        of_scheme = bool(is_url) and scheme + _ANY_OF_SCHEME in self._origins
        return of_scheme or lowered in self._origins


def cors_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with which a browser lets a page of this served origin read the response."""
    origin = headers.get("origin")
    if origin is None:
        return {}
    return {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": "*",
        "vary": "origin",
    }


def preflight_headers(headers: Mapping[str, str]) -> dict[str, str] | None:
    """The answer to a browser that asks whether a page may send a request; None if none asks."""
    method = headers.get("access-control-request-method")
    if method is None or "origin" not in headers:
        return None
    answer = {
        "access-control-allow-methods": method,
        "access-control-allow-headers": headers.get("access-control-request-headers", "*"),
        "access-control-max-age": _PREFLIGHT_SECONDS,
    }
    if headers.get("access-control-request-private-network") == "true":
        answer["access-control-allow-private-network"] = "true"
    return answer


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
        self._turnover = Turnover()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Counts one request as running.

        Raises:
            ApiError: 529, the maximum is reached.
        """
        if self._running >= self._max_requests:
            raise overloaded(
                f"{self._running} requests are in progress, the maximum (server.max_requests).",
                self._turnover.retry_after_seconds(self._running),
            )
        self._running += 1
        began = time.monotonic()
        try:
            yield
        finally:
            self._running -= 1
            self._turnover.ended(time.monotonic() - began)
