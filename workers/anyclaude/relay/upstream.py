"""One server and what is known about it: dialect, model, unsupported fields, health.

All of this is learned from its responses. Another server may start at the same address at any time,
so after a 404 it is forgotten and the server is probed again.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Final

import structlog

from anyclaude.messages.context_edits import Edited, Request, apply_edits
from anyclaude.messages.errors import ApiError, invalid_request
from anyclaude.relay.anthropic.dialect import COUNT_PATH, AnthropicDialect
from anyclaude.relay.breaker import Breaker, BreakerOpenError
from anyclaude.relay.client import Client, Headers
from anyclaude.relay.dialect import Dialect, Target
from anyclaude.relay.environment import Key
from anyclaude.relay.failures import Party, UpstreamFault
from anyclaude.relay.openai.dialect import OpenAiDialect
from anyclaude.relay.probe import Evidence, Prober, Served
from anyclaude.relay.quirks import Quirks
from anyclaude.relay.usage import Estimator
from anyclaude.runtime.upstreams import UpstreamKind, UpstreamSettings
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)

# In these servers people switch models by hand; naming the old model would load it again.
_CHANGING: Final = frozenset({UpstreamKind.LMSTUDIO, UpstreamKind.OLLAMA})
_SERVED_SECONDS: Final = 60.0
_SERVED_CHANGING_SECONDS: Final = 5.0
_MAX_RETRY_AFTER_SECONDS: Final = 60


class Upstream:
    """One server: what was learned about it, and whether it may get requests."""

    def __init__(
        self,
        name: str,
        settings: UpstreamSettings,
        key: Key,
        *,
        proxy: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.party = Party(name, settings, proxy)
        self.settings = settings
        self.key = key
        self.client = Client(self.party)
        self.breaker = Breaker(settings.breaker_failures, settings.breaker_open_seconds, clock)
        self._quirks = Quirks()
        self._learned_at = 0.0
        self.estimator = Estimator()
        self.running = 0
        # Whether it can count the tokens of a prompt.
        self.counts = True
        self._warned_no_counts = False
        self._clock = clock
        self._prober = Prober(self.client, settings.kind)
        self._probing = asyncio.Lock()
        self._dialect: Dialect | None = _fixed_dialect(settings)
        self._served: Served | None = None
        self._served_at = 0.0
        self._reachability = pb.REACHABILITY_UNSPECIFIED
        self._last_error = ""
        self._last_error_time = 0.0

    @property
    def name(self) -> str:
        return self.party.name

    def headers(self, dialect: Dialect | None = None) -> Headers:
        """The headers of every request.

        Raises:
            ApiError: the key cannot be read.
        """
        is_api = self.settings.kind is UpstreamKind.CLAUDE
        used = dialect or self._dialect or OpenAiDialect()
        own = [(name.encode(), value.encode()) for name, value in self.settings.headers.items()]
        return [*used.headers(self.key.read(), is_api=is_api), *own]

    def edited(self, request: Request) -> Edited[Request]:
        """The request after its context edits, which only the real API applies itself."""
        if self.settings.kind is UpstreamKind.CLAUDE:
            return Edited(request)
        return apply_edits(request, self.estimator.estimate_edited)

    async def dialect(self) -> Dialect:
        """The server's dialect; probed once.

        Raises:
            ApiError: the server did not respond, or the key cannot be read.
        """
        if self._dialect is None:
            async with self._probing:
                if self._dialect is None:
                    self._dialect = await self._find_dialect()
        return self._dialect

    async def _find_dialect(self) -> Dialect:
        """Prefers the Messages API, since then nothing is translated.

        vLLM is the exception: its Messages API ignores schemas and does not report reused tokens.
        """
        wanted: Dialect = AnthropicDialect()
        other: Dialect = OpenAiDialect()
        if self.settings.kind is UpstreamKind.VLLM:
            wanted, other = other, wanted
        first = await self._prober.evidence(wanted.path, self.headers(wanted))
        if first is not Evidence.UNCLEAR:
            return wanted if first is Evidence.PRESENT else other
        if await self._prober.evidence(other.path, self.headers(other)) is Evidence.ABSENT:
            return wanted
        # The server fails at empty requests, so they do not show which endpoints it has. Only the
        # Messages API counts tokens.
        headers = self.headers(AnthropicDialect())
        counts = await self._prober.counts(COUNT_PATH, headers, self.settings.model)
        return AnthropicDialect() if counts else OpenAiDialect()

    async def served(self) -> Served:
        """The model that the server serves, as of a moment ago.

        Raises:
            ApiError: the server did not respond, or the key cannot be read.
        """
        if self._served is None or self._is_stale:
            async with self._probing:
                # Another request may have probed it meanwhile.
                if self._served is None or self._is_stale:
                    self._served = await self._prober.served(self.headers(), self.settings.model)
                    self._served_at = self._clock()
        return self._served

    @property
    def _is_stale(self) -> bool:
        is_many = self._served is not None and self._served.is_one_of_many
        changes = not self.settings.model and (self.settings.kind in _CHANGING or is_many)
        seconds = _SERVED_CHANGING_SECONDS if changes else _SERVED_SECONDS
        return self._clock() - self._served_at > seconds

    async def target(self, requested_model: str) -> Target:
        """What a request for `requested_model` is adapted to.

        Raises:
            ApiError: the model is not known.
        """
        model = await self._model_for(requested_model)
        takes_images = (self._served or Served()).takes_images is not False
        return Target(self.settings, model, self.quirks, takes_images=takes_images)

    async def _model_for(self, requested: str) -> str:
        if mapped := _mapped(self.settings, requested):
            return mapped
        if self.settings.kind is UpstreamKind.CLAUDE:
            return self.settings.model or requested
        if self.settings.kind is UpstreamKind.OPENROUTER and not self.settings.model:
            raise invalid_request(
                f"{self.party} needs the name of a model: set OPENROUTER_MODEL where anyclauded "
                f"starts, or upstreams.{self.name}.model."
            )
        return self.settings.model or (await self.served()).model or requested

    @property
    def quirks(self) -> Quirks:
        """What the server was seen to refuse lately."""
        if self._clock() - self._learned_at > self.settings.learned_seconds:
            self._quirks = Quirks()
        return self._quirks

    def learn(self, quirks: Quirks) -> None:
        """Remembers a form of requests that the server took after it had refused another."""
        joined = self.quirks.joined(quirks)
        if joined != self._quirks:
            self._quirks, self._learned_at = joined, self._clock()
            log.info("server takes only some requests", upstream=self.name, known=joined.describe())

    def forget(self) -> None:
        """Forgets what was learned, since another server may have replaced this one."""
        self._dialect = _fixed_dialect(self.settings)
        self._served = None
        self._quirks = Quirks()
        self.counts = True

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Surrounds each request; its outcome decides whether more requests are sent.

        Raises:
            ApiError: 529, the server failed too often; no request is sent for a while.
        """
        self._admit()
        self.running += 1
        try:
            yield
            self._reachability = pb.REACHABILITY_REACHABLE
            self._last_error = ""
            self.breaker.succeeded()
        except UpstreamFault as fault:
            log.warning("server failed", upstream=self.name, status=fault.status)
            if fault.status == 529 or fault.should_retry is False:
                self._reachability = pb.REACHABILITY_UNREACHABLE
            self._note_error(fault)
            self.breaker.failed()
            raise
        finally:
            self.running -= 1
            self.breaker.undecided()

    def _admit(self) -> None:
        try:
            self.breaker.enter()
        except BreakerOpenError as refused:
            seconds = min(max(1, round(refused.wait_seconds + 0.5)), _MAX_RETRY_AFTER_SECONDS)
            raise ApiError(
                529,
                f"{self.party} failed {self.breaker.failures} times in a row and is tried again in "
                f"{seconds} s. The last time: {self._last_error}",
                retry_after_seconds=seconds,
            ) from None

    def note_answering(self) -> None:
        self._reachability = pb.REACHABILITY_REACHABLE
        self.breaker.answering()

    def note_refusal(self, error: ApiError) -> None:
        """The server responded with an error that the request, or the settings, caused."""
        self._reachability = pb.REACHABILITY_REACHABLE
        self._note_error(error)
        self.breaker.succeeded()

    def note_no_counts(self) -> None:
        """The server responded without reporting token counts."""
        if not self._warned_no_counts:
            self._warned_no_counts = True
            log.warning("server reports no token counts: usage is estimated", upstream=self.name)

    def note_no_count_endpoint(self) -> None:
        if self.counts:
            self.counts = False
            log.warning("server cannot count tokens: counts are estimated", upstream=self.name)

    def _note_error(self, error: ApiError) -> None:
        self._last_error, self._last_error_time = error.message, time.time()

    async def check(self, *, anew: bool) -> None:
        """Probes the server for `status`; errors are recorded, not raised.

        With `anew`, it is probed even if it was probed a moment ago.
        """
        if anew:
            self._served = None
        try:
            served = await self.served()
            # Otherwise it is probably no model server.
            if served.model or anew:
                await self.dialect()
        except UpstreamFault as fault:
            self._served = None
            self._reachability = pb.REACHABILITY_UNREACHABLE
            self._note_error(fault)
        except ApiError as error:
            self._note_error(error)
        else:
            if self._reachability != pb.REACHABILITY_REACHABLE:
                self._last_error = ""
            self._reachability = pb.REACHABILITY_REACHABLE

    def status(self) -> pb.UpstreamStatus:
        status = pb.UpstreamStatus(
            name=self.name,
            base_url=self.settings.base_url,
            is_loopback=self.settings.is_loopback,
            dialect=self._dialect.name if self._dialect else pb.DIALECT_UNSPECIFIED,
            breaker=f"BREAKER_STATE_{self.breaker.state.name}",
            reachability=self._reachability,
            has_key=self.key.is_set,
            last_error=self._last_error,
            running_requests=self.running,
            learned=self.quirks.describe(),
        )
        if self._last_error:
            status.last_error_time.FromMilliseconds(int(self._last_error_time * 1000))
        if model := self._model_info():
            status.model.CopyFrom(model)
        return status

    def _model_info(self) -> pb.ModelInfo | None:
        served = self._served or Served()
        model = self.settings.model or served.model
        if not model:
            return None
        info = pb.ModelInfo(
            # The client lists these, and does not mistake them for models of Anthropic.
            id=model if self.settings.kind is UpstreamKind.CLAUDE else f"anyclaude-{model}",
            display_name=f"{model} ({self.name})",
            context_window_tokens=(
                self.settings.context_window_tokens or served.context_window_tokens
            ),
        )
        if served.has_tools is not None:
            info.has_tools = served.has_tools
        if served.takes_images is not None:
            info.takes_images = served.takes_images
        return info


def _fixed_dialect(settings: UpstreamSettings) -> Dialect | None:
    match settings.dialect:
        case "openai":
            return OpenAiDialect()
        case "anthropic":
            return AnthropicDialect()
    return None


def _mapped(settings: UpstreamSettings, requested: str) -> str:
    if requested in settings.models:
        return settings.models[requested]
    patterns = (name for name in settings.models if fnmatchcase(requested, name))
    return next((settings.models[name] for name in patterns), "")
