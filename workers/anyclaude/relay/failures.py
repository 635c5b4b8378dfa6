"""What can go wrong with a server, as errors of the Messages API that say what to do.

A `Refusal` is a response of the server; an `UpstreamFault` is a failure of the server, which counts
for its circuit breaker. The status is 529 if waiting helps (the client tries again by itself), and
500 with should_retry off if the user has to act first.
"""

import errno
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from socket import gaierror
from typing import Final

from httpcore2 import ProxyError

from anyclaude.messages.errors import ApiError
from anyclaude.relay.overflow import Overflow, find_overflow
from anyclaude.relay.refusals import Refusal
from anyclaude.runtime.upstreams import UpstreamKind, UpstreamSettings, without_credentials

_RETRY_AFTER_SECONDS: Final = 2
_LOADING_RETRY_AFTER_SECONDS: Final = 5
# EHOSTUNREACH on macOS, where it is also how the privacy setting shows.
_NO_ROUTE: Final = {errno.EHOSTUNREACH, 65}
_STARTS: Final[Mapping[UpstreamKind, str]] = {
    UpstreamKind.LMSTUDIO: "start it with `lms server start`",
    UpstreamKind.VLLM: "start it with `vllm serve MODEL`",
    UpstreamKind.LLAMA_CPP: "start it with `llama-server --jinja -m MODEL.gguf`",
    UpstreamKind.OLLAMA: "start it with `ollama serve`",
    UpstreamKind.MLX_LM: "start `mlx_lm.server`, or unset MLX_LM_URL to use anyclaude's own worker",
}
# The error messages of web frameworks for an unknown path.
_BARE_NOT_FOUND: Final = re.compile(
    r"(404 ?:? ?)?(page )?not found\.?|file not found|no reason given|an HTML page.*|"
    r"cannot (post|get) /.*|.*requested url was not found.*|.*\b(route|path|url)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_LOADING: Final = re.compile(
    r"^(?!.*(?:error|fail)).*(?:loading (?:the )?model|model\b.{0,60}\bis (?:currently |still )?"
    r"loading)",
    re.IGNORECASE | re.DOTALL,
)
_FLAGGED: Final = re.compile(r"moderation|flagged|safety|content (?:policy|filter)", re.IGNORECASE)
# Limits for a while, which mention tokens, too.
_LATER_HELPS: Final = re.compile(r"rate limit reached|try again in|\bused \d+", re.IGNORECASE)
_NO_SUCH_MODEL: Final = re.compile(
    r"model\b[`'\": ]*[\w./:@-]*[`'\",]* (is |was |has been |does )?(not (found|exist|a valid|"
    r"available|supported$|supported\.)|no longer|decommission|unknown|deprecated)|"
    r"(no|invalid|unknown|unsupported) (such )?model\b|no (endpoints|allowed providers)|"
    r"not a valid model",
    re.IGNORECASE,
)
_API_SENTENCES: Final = ("prompt is too long: ", "input length and `max_tokens` exceed")


class UpstreamFault(ApiError):
    """The server failed, not the request."""


@dataclass(frozen=True)
class Party:
    """The server as error messages name it."""

    name: str
    settings: UpstreamSettings
    # The forward proxy in front of it, with its credentials; empty for a direct connection.
    proxy: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.settings.base_url})"

    @property
    def key_hint(self) -> str:
        variable = self.settings.api_key_env
        file = f"upstreams.{self.name}.api_key_file"
        return f"set {variable} where anyclauded starts, or {file}" if variable else f"set {file}"


def explain_refusal(refusal: Refusal, party: Party, *, model: str, max_tokens: int) -> ApiError:
    """The error for a refusal after which no other form of the request can be tried."""
    is_api = party.settings.kind is UpstreamKind.CLAUDE or refusal.message.startswith(
        _API_SENTENCES
    )
    if is_api:
        # The client recognises errors by the API's own words.
        return _verbatim(refusal)
    overflow = overflow_of(refusal, party, max_tokens)
    return overflow.error(party.name, max_tokens) if overflow else _explain(refusal, party, model)


def overflow_of(refusal: Refusal, party: Party, max_tokens: int) -> Overflow | None:
    """Whether a refusal is about the length of the prompt or of the requested answer."""
    if refusal.status in (401, 402, 403, 404) or _LATER_HELPS.search(refusal.message):
        return None
    patterns = party.settings.overflow_patterns
    found = find_overflow(
        refusal.message, refusal.details, requested_tokens=max_tokens, patterns=patterns
    )
    # A limit for a minute: only a request that exceeds all of it is too long.
    is_limit = refusal.status == 429 and (not found or found.prompt_tokens is None)
    return None if is_limit else found


def _verbatim(refusal: Refusal) -> ApiError:
    error = UpstreamFault if refusal.status in (502, 503, 504) else ApiError
    return error(
        refusal.status,
        refusal.message,
        retry_after_seconds=refusal.retry_after_seconds,
        error_type=str(refusal.details.get("type") or ""),
    )


def _explain(refusal: Refusal, party: Party, model: str) -> ApiError:
    status, message = refusal.status, refusal.message
    lowered = message.lower()
    wait = refusal.retry_after_seconds
    if _LOADING.search(message):
        return ApiError(
            529,
            f"{party} is still loading its model.",
            retry_after_seconds=wait or _LOADING_RETRY_AFTER_SECONDS,
        )
    if "no model" in lowered and "load" in lowered:
        return ApiError(
            404, f"{party} has no model loaded: load one there and try again. It said: {message}"
        )
    if status in (401, 402, 403):
        return _not_allowed(refusal, party)
    if status == 404 or (status == 400 and _NO_SUCH_MODEL.search(message)):
        return _missing(message, party, model)
    match status:
        case 405:
            return _wrong_address(message, party)
        case 407:
            return _proxy_refuses(f"{status}", party)
        case 408 | 504:
            return UpstreamFault(504, f"{party} gave up waiting: {message}")
        case 409:
            return ApiError(status, f"{party} refused the request: {message}")
        case 413:
            return ApiError(
                status,
                f"{party} does not take a request of this size ({message}). Compact the "
                "conversation with /compact, or raise the limit of the server or gateway.",
            )
        case 429:
            return ApiError(429, f"{party} limits requests: {message}", retry_after_seconds=wait)
        case 425 | 498 | 502 | 503 | 520 | 521 | 522 | 523 | 529:
            hint = f"{party} is unavailable: {message}"
            return UpstreamFault(529, hint, retry_after_seconds=wait or _RETRY_AFTER_SECONDS)
        case _ if status >= 500:
            return UpstreamFault(500, f"{party} failed ({status}): {message}")
        case _ if status < 400:
            return _not_an_answer(status, message, party)
    return ApiError(400, f"{party} refused the request: {message}")


def _not_allowed(refusal: Refusal, party: Party) -> ApiError:
    """401, 402 and 403: each has another remedy."""
    message = refusal.message
    match refusal.status:
        case 401:
            return ApiError(401, f"{party} does not accept the key: {party.key_hint}. ({message})")
        case 402:
            return ApiError(
                402,
                f"{party} wants to be paid: add credit to the account there, or use a model "
                f"without cost (upstreams.{party.name}.model). {_way_out(party)} ({message})",
                should_retry=False,
            )
    if _FLAGGED.search(message):
        return ApiError(
            403,
            f"{party} does not allow this request: {message}. Its filter is the reason: go back a "
            f"few messages, or set upstreams.{party.name}.model to a model without one.",
        )
    return ApiError(
        403,
        f"{party} does not allow this request: {message}. If the key is the reason, "
        f"{party.key_hint}; if the model is, set upstreams.{party.name}.model to another one.",
    )


def _missing(message: str, party: Party, model: str) -> ApiError:
    lowered = message.lower()
    if "no endpoints" in lowered or "no allowed providers" in lowered:
        # OpenRouter: the model exists, but nobody serves it in the way that was requested.
        return ApiError(
            404,
            f"{party} finds nobody who serves {model!r} for this request: {message}. Choose "
            f"another model with upstreams.{party.name}.model, or change the account's settings "
            "for providers and privacy there.",
        )
    if _BARE_NOT_FOUND.fullmatch(message) or "endpoint" in lowered or "invalid url" in lowered:
        return _wrong_address(message, party)
    pull = f" `ollama pull {model}` loads it." if party.settings.kind is UpstreamKind.OLLAMA else ""
    return ApiError(
        404,
        f"{party} has no model {model!r} ({message}).{pull} Set upstreams.{party.name}.model to "
        f"one of those that {party.settings.root}/v1/models lists, or to nothing for the loaded "
        "one.",
    )


def _wrong_address(message: str, party: Party) -> ApiError:
    return ApiError(
        404,
        f"{party} does not know the address ({message}). Check upstreams.{party.name}.base_url.",
    )


def _not_an_answer(status: int, message: str, party: Party) -> ApiError:
    return ApiError(
        500,
        f"{party} answered {status}, which is no answer of a model server ({message}). "
        f"Check upstreams.{party.name}.base_url.",
        should_retry=False,
    )


def explain_transport(error: BaseException, party: Party) -> UpstreamFault:
    """The error for a connection that could not be made, or broke."""
    causes = list(_causes(error))
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError) and cause.errno}
    # Errors of host names and certificates are also OSErrors, so they are checked first.
    if any(isinstance(cause, (gaierror, UnicodeError)) for cause in causes):
        address = without_credentials(party.proxy) or party.settings.base_url
        return _for_people(f"The name in {address} does not resolve", party)
    if refusal := next((cause for cause in causes if isinstance(cause, ProxyError)), None):
        return _proxy_refuses(str(refusal), party)
    if problem := next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None):
        why = getattr(problem, "verify_message", "") or getattr(problem, "reason", "") or problem
        return _for_people(
            f"No TLS connection to {party}: {why}. For a certificate of your own, set "
            f"upstreams.{party.name}.ca_file",
            party,
        )
    if numbers & _NO_ROUTE:
        return _for_people(
            f"There is no route to {party} (errno {min(numbers & _NO_ROUTE)}). If it answers in "
            "your terminal, macOS keeps this background service off the local network: allow "
            "it in System Settings > Privacy & Security > Local Network",
            party,
        )
    if party.proxy and errno.ECONNREFUSED in numbers:
        what = f"The proxy {without_credentials(party.proxy)} refuses connections"
        return _for_people(f"{what}. {_proxy_settings(party)}", party)
    if errno.ECONNREFUSED in numbers:
        return _waiting(f"{party} refuses connections: it is not running", party)
    return _waiting(f"The connection to {party} broke", party)


def bad_certificates(party: Party, error: OSError) -> UpstreamFault:
    return UpstreamFault(
        500,
        f"upstreams.{party.name}.ca_file = {party.settings.ca_file} cannot be used: "
        f"{error.strerror or error}.",
        should_retry=False,
    )


def bad_proxy(party: Party) -> UpstreamFault:
    shown = without_credentials(party.proxy)
    return UpstreamFault(
        500,
        f"The proxy of {party} cannot be used: {shown} is not an http:// or https:// address. "
        f"{_proxy_settings(party)}.",
        should_retry=False,
    )


def _proxy_refuses(why: str, party: Party) -> UpstreamFault:
    what = f"The proxy {without_credentials(party.proxy)} does not connect to {party}: {why}"
    return _for_people(f"{what}. {_proxy_settings(party)}", party)


def _proxy_settings(party: Party) -> str:
    return f"Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY, or set upstreams.{party.name}.proxy"


def connect_timeout(party: Party) -> UpstreamFault:
    seconds = party.settings.connect_timeout_seconds
    return _waiting(f"{party} took no connection within {seconds:g} s", party)


def silence(party: Party, seconds: float, *, begun: bool) -> UpstreamFault:
    """The server has stopped sending."""
    which = "idle_timeout_seconds" if begun else "first_byte_timeout_seconds"
    state = "stopped in the middle of its answer" if begun else "did not begin to answer"
    return UpstreamFault(
        504,
        f"{party} {state}: {seconds:g} s without a word. If it needs longer, raise "
        f"upstreams.{party.name}.{which}.",
    )


def broken_answer(party: Party, why: str) -> UpstreamFault:
    """The response cannot be understood, or ends before it is complete."""
    return UpstreamFault(500, f"{party} sent a broken answer: {why}.")


def _for_people(what: str, party: Party) -> UpstreamFault:
    return UpstreamFault(500, f"{what}. {_way_out(party)}", should_retry=False)


def _waiting(what: str, party: Party) -> UpstreamFault:
    start = _STARTS.get(party.settings.kind)
    hint = f": {start}" if start else f". Check upstreams.{party.name}.base_url"
    return UpstreamFault(
        529, f"{what}{hint}. {_way_out(party)}", retry_after_seconds=_RETRY_AFTER_SECONDS
    )


def _way_out(party: Party) -> str:
    if party.settings.kind is UpstreamKind.MLX_LM:
        return "Or choose another mode: `anyclaudectl mode`."
    return "Or answer locally: `anyclaudectl mode mlx-lm`."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and all errors that it was raised from."""
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        cause = pending.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            pending += cause.exceptions
        pending += [inner for inner in (cause.__cause__, cause.__context__) if inner is not None]
