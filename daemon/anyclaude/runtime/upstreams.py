"""`[upstreams.NAME]`: the servers that the relay worker asks, and what is known of each kind.

A table takes what it leaves out from the preset of its `kind`; a table named like a preset is of
that kind. Keys are named here, never held: `api_key_env` and `api_key_file` say where one is.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

# Their values would be shown by `anyclaudectl config`.
_KEY_HEADERS: Final = frozenset({"authorization", "x-api-key", "proxy-authorization", "cookie"})
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class UpstreamKind(StrEnum):
    LMSTUDIO = "lmstudio"
    VLLM = "vllm"
    LLAMA_CPP = "llama-cpp"
    OLLAMA = "ollama"
    OPENROUTER = "openrouter"
    CLAUDE = "claude"
    # An mlx_lm.server that somebody else runs.
    MLX_LM = "mlx-lm"
    OTHER = "other"


class SwitchPolicy(StrEnum):
    """What becomes of our own worker while a mode is the service's."""

    # It keeps its process and caches: two models in memory.
    START_FIRST = "start-first"
    # It ends, so that the mode's server can have its memory; its caches come back from disk.
    STOP_FIRST = "stop-first"


class UpstreamSettings(BaseModel):
    """One server; empty `base_url` means that there is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: UpstreamKind = UpstreamKind.OTHER
    # With or without a trailing /v1.
    base_url: str = ""
    # auto asks the server once.
    dialect: Literal["auto", "openai", "anthropic"] = "auto"
    # Where the key is; a file wins over a variable of the daemon's environment.
    api_key_env: str = ""
    api_key_file: str = ""
    # Certificates to trust instead of the usual ones, in PEM.
    ca_file: str = ""
    # What to ask for; empty means whatever the server has loaded.
    model: str = ""
    # By the model the client asks for, `*` allowed; wins over `model`.
    models: dict[str, str] = {}
    # 0 asks the server. Of the kinds mlx-lm, ollama and other, which may refuse no length, the
    # relay refuses what is longer.
    context_window_tokens: int = Field(0, ge=0)
    # A client's larger max_tokens is cut to this; 0 leaves it.
    max_output_tokens: int = Field(0, ge=0)
    switch: SwitchPolicy = SwitchPolicy.START_FIRST
    # Of stop-first: how long the server may take to answer once our worker has ended.
    switch_ready_seconds: float = Field(10.0, ge=0)
    # Sent with every request.
    headers: dict[str, str] = {}
    # Merged into the body of every generation, e.g. {top_k = 20}.
    extra_body: dict[str, Any] = {}
    # Off for servers that stream tool calls badly.
    stream: bool = True
    connect_timeout_seconds: float = Field(2.0, gt=0)
    # Silence allowed before the first content: a long prompt takes a local server minutes.
    first_byte_timeout_seconds: float = Field(600.0, gt=0)
    # Silence allowed afterwards.
    idle_timeout_seconds: float = Field(120.0, gt=0)
    # Further tries of a request whose connection broke before the first byte.
    retries: int = Field(1, ge=0, le=5)
    # This many failures in a row and requests are refused at once for breaker_open_seconds.
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

    @field_validator("api_key_env")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name and not _VARIABLE.fullmatch(name):
            raise ValueError("expected the name of an environment variable, not the key itself")
        return name

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in _KEY_HEADERS:
                raise ValueError(f"{name} would hold a key; use api_key_env or api_key_file")
        return headers

    @property
    def root(self) -> str:
        """The address that `/v1/...` is appended to."""
        return self.base_url.rstrip("/").removesuffix("/v1")

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there stays on this machine."""
        return urlsplit(self.base_url).hostname in _LOOPBACK


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
    # No address of its own: without one the mlx-lm mode is answered by our own worker.
    "mlx-lm": {"dialect": "openai", "api_key_env": "MLX_LM_API_KEY"},
}


def with_presets(tables: Any) -> Any:
    """`tables` as given, each completed from its preset, and the presets that it does not name."""
    if not isinstance(tables, Mapping):
        return tables
    named = {**{name: {} for name in PRESETS}, **tables}
    return {name: _completed(name, table) for name, table in named.items()}


def _completed(name: str, table: Any) -> Any:
    if not isinstance(table, Mapping):
        return table
    kind = table.get("kind", name if name in PRESETS else "other")
    # An unfit kind is for the validation to refuse.
    preset = PRESETS.get(kind, {}) if isinstance(kind, str) else {}
    return {"kind": kind, **preset, **table}


def default_upstreams() -> dict[str, UpstreamSettings]:
    return {
        name: UpstreamSettings.model_validate(table) for name, table in with_presets({}).items()
    }
