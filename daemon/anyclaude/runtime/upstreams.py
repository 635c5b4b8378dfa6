"""`[upstreams.NAME]`: the servers of the relay worker, with presets for the kinds we know.

What a table leaves out comes from the preset of its `kind`. A table that is named like a preset is
of that kind. A setting never contains an API key: `api_key_env` or `api_key_file` names its place.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

# These headers carry secrets, and `anyclaudectl config` would show them.
_KEY_HEADERS: Final = frozenset({"authorization", "x-api-key", "proxy-authorization", "cookie"})
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The value of `proxy` that means a direct connection, whatever the environment contains.
NO_PROXY: Final = "none"


class UpstreamKind(StrEnum):
    LMSTUDIO = "lmstudio"
    VLLM = "vllm"
    LLAMA_CPP = "llama-cpp"
    OLLAMA = "ollama"
    OPENROUTER = "openrouter"
    CLAUDE = "claude"
    # An mlx_lm.server that the user runs.
    MLX_LM = "mlx-lm"
    OTHER = "other"


class SwitchPolicy(StrEnum):
    """What happens to the MLX worker when the service switches to a mode."""

    # It keeps running, with its caches: two models are in memory.
    START_FIRST = "start-first"
    # It stops first and frees its memory; its caches come back from disk later.
    STOP_FIRST = "stop-first"


class UpstreamSettings(BaseModel):
    """One server. Without a `base_url` there is no such server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: UpstreamKind = UpstreamKind.OTHER
    # With or without a trailing /v1.
    base_url: str = ""
    # auto: found by one request to the server.
    dialect: Literal["auto", "openai", "anthropic"] = "auto"
    # Where the API key is: in a variable of the daemon's environment, or in a file, which wins.
    api_key_env: str = ""
    api_key_file: str = ""
    # Certificates (PEM) that are trusted instead of the system's.
    ca_file: str = ""
    # The forward proxy to this server. Empty: as HTTPS_PROXY, HTTP_PROXY and NO_PROXY say; "none":
    # a direct connection. A server on loopback is always reached directly.
    proxy: str = Field("", repr=False)
    # The model to request; empty: the one that the server has loaded.
    model: str = ""
    # The model for each name that a client may request, `*` allowed; wins over `model`.
    models: dict[str, str] = {}
    # 0: as the server reports it. Servers of the kinds mlx-lm, ollama and other may accept any
    # length, so the relay itself refuses longer prompts.
    context_window_tokens: int = Field(0, ge=0)
    # A larger max_tokens of a client is reduced to this; 0: never.
    max_output_tokens: int = Field(0, ge=0)
    # Regular expressions for this server's refusals of a prompt that is too long, beside those that
    # the relay knows. Groups named `prompt` and `window` hold the counts.
    overflow_patterns: list[str] = []
    # How long the relay remembers what this server refuses; then it tries once more.
    learned_seconds: float = Field(86400.0, gt=0)
    # The server's command and its arguments, if the service runs it: it starts when its mode is
    # chosen, and stops when another one is.
    command: list[str] = []
    # Variables for the command; keys belong in `api_key_file`.
    environment: dict[str, str] = {}
    # The folder in which the command runs.
    folder: str = ""
    # The path that answers with a status below 400 once the server is ready.
    ready_path: str = Field("/v1/models", pattern="^/")
    # Whether the log gets what the server prints after it is ready, which may contain prompts.
    log_output: bool = False
    switch: SwitchPolicy = SwitchPolicy.START_FIRST
    # For stop-first: how long the server may take to respond after the MLX worker has stopped.
    switch_ready_seconds: float = Field(10.0, ge=0)
    # Sent with every request.
    headers: dict[str, str] = {}
    # Added to the body of every generation request, e.g. {top_k = 20}.
    extra_body: dict[str, Any] = {}
    # Set to false for a server that cannot stream tool calls.
    stream: bool = True
    connect_timeout_seconds: float = Field(2.0, gt=0)
    # How long the server may be silent before its first content: a long prompt takes minutes.
    first_byte_timeout_seconds: float = Field(600.0, gt=0)
    # How long it may be silent after that.
    idle_timeout_seconds: float = Field(120.0, gt=0)
    # How often a request is sent again when its connection breaks before the first byte.
    retries: int = Field(1, ge=0, le=5)
    # After this many failures in a row, requests are refused for `breaker_open_seconds`.
    breaker_failures: int = Field(5, ge=1)
    breaker_open_seconds: float = Field(15.0, gt=0)

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not url:
            return url
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected an address like http://127.0.0.1:1234")
        if parts.username or parts.password:
            raise ValueError("keys do not belong in an address; use api_key_env or api_key_file")
        if parts.query or parts.fragment:
            raise ValueError("an address ends with its path")
        return url

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, url: str) -> str:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname
        if url and url != NO_PROXY and not is_address:
            raise ValueError('expected an address like http://proxy.example:3128, or "none"')
        return url

    @field_validator("api_key_env")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name and not _VARIABLE.fullmatch(name):
            raise ValueError("expected the name of an environment variable, not the key itself")
        return name

    @field_validator("overflow_patterns")
    @classmethod
    def _check_patterns(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return patterns

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in _KEY_HEADERS:
                raise ValueError(f"{name} would hold a key; use api_key_env or api_key_file")
        return headers

    @property
    def root(self) -> str:
        """The address to which `/v1/...` is appended."""
        return self.base_url.rstrip("/").removesuffix("/v1")

    @property
    def is_loopback(self) -> bool:
        """Whether requests to this server stay on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def without_credentials(url: str) -> str:
    """An address as it may be shown."""
    scheme, found, rest = url.rpartition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}{found}***@{host}" if at else url


PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "lmstudio": {"base_url": "http://127.0.0.1:1234", "api_key_env": "LMSTUDIO_API_KEY"},
    "vllm": {"base_url": "http://127.0.0.1:8000", "api_key_env": "VLLM_API_KEY"},
    "llama-cpp": {"base_url": "http://127.0.0.1:8080", "api_key_env": "LLAMA_API_KEY"},
    "ollama": {"base_url": "http://127.0.0.1:11434", "api_key_env": "OLLAMA_API_KEY"},
    "openrouter": {
        "base_url": "https://openrouter.ai/api",
        "dialect": "openai",
        "api_key_env": "OPENROUTER_API_KEY",
        "connect_timeout_seconds": 10.0,
    },
    "claude": {
        "base_url": "https://api.anthropic.com",
        "dialect": "anthropic",
        "api_key_env": "ANTHROPIC_API_KEY",
        "connect_timeout_seconds": 10.0,
    },
    # Without an address, the MLX worker answers in mode mlx-lm.
    "mlx-lm": {"dialect": "openai", "api_key_env": "MLX_LM_API_KEY"},
}


def with_presets(tables: Any) -> Any:
    """Returns the given tables, completed from their presets, and all other presets."""
    if not isinstance(tables, Mapping):
        return tables
    named = {**{name: {} for name in PRESETS}, **tables}
    return {name: _completed(name, table) for name, table in named.items()}


def _completed(name: str, table: Any) -> Any:
    if not isinstance(table, Mapping):
        return table
    kind = table.get("kind", name if name in PRESETS else "other")
    # An unknown kind is left for the validation to refuse.
    preset = PRESETS.get(kind, {}) if isinstance(kind, str) else {}
    return {"kind": kind, **preset, **table}


def default_upstreams() -> dict[str, UpstreamSettings]:
    return {
        name: UpstreamSettings.model_validate(table) for name, table in with_presets({}).items()
    }
