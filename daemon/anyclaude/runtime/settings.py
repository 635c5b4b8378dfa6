"""Settings: every bound is a number here, with its unit in its name.

Precedence: flag, environment, TOML file, default. An unknown key or an unfit value is an error that
names the key, where it came from, and what would fit. Each effective value remembers its origin.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from anyclaude.runtime.upstreams import UpstreamSettings, default_upstreams, with_presets


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Section):
    """The HTTP endpoint that Claude Code talks to."""

    host: Literal["127.0.0.1", "::1", "localhost"] = "127.0.0.1"
    # 0 takes a free port, which status names.
    port: int = Field(49152, ge=0, le=65535)
    # A file whose content every request must present; empty asks for none.
    auth_token_file: str = ""
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024, le=40 * 1024 * 1024)
    ping_interval_seconds: float = Field(5.0, gt=0, le=10)
    # How long an answer's HTTP status may wait for the worker to accept or refuse.
    accept_wait_seconds: float = Field(3.0, ge=0, le=60)
    # Requests the front end holds at once; more are answered 529.
    max_requests: int = Field(64, ge=1)
    drain_timeout_seconds: float = Field(10.0, ge=0, le=300)
    # A client that takes no byte for this long while we have some for it is dropped, and so is one
    # whose request does not arrive.
    client_stall_seconds: float = Field(60.0, gt=0)


class ModelSettings(_Section):
    """Which model is resident."""

    # A local folder, or a hub id looked up in the local hub cache; empty means the demo model.
    path: str = ""
    # Shown to clients; empty derives it from the path.
    name: str = ""
    # Smaller than the model's own window to save memory; 0 takes the model's.
    context_window_tokens: int = Field(0, ge=0)
    # Answers stand in later prompts in the tokens that the model wrote, not as its template writes
    # them; `python -m benchmarks.spliced_turns` compares both for a model. In memory only.
    spliced_turns: bool = False
    spliced_bytes: int = Field(64 * 1024**2, ge=1)
    # Used when the client gives none (Claude Code always does).
    temperature: float = Field(0.7, ge=0, le=2)


class CacheSettings(_Section):
    """The KV cache."""

    # 0 derives it from the machine's memory less the weights.
    memory_limit_bytes: int = Field(0, ge=0)
    # Part of the caches that goes when the limit is passed, oldest first.
    prune_fraction: float = Field(0.2, gt=0, le=1)
    # Saved states per lineage for layers that cannot be cut.
    checkpoints_per_lineage: int = Field(8, ge=2)
    # Kept system-and-tools prefixes.
    max_prefixes: int = Field(16, ge=1)
    # A prefix shorter than this is cheaper to compute than to keep.
    min_prefix_tokens: int = Field(256, ge=1)
    # Part of memory_limit_bytes that pinned caches may take.
    max_pinned_fraction: float = Field(0.5, ge=0, le=1)
    # A conversation not heard of for this long is kept in the shared prefix tree alone.
    live_idle_seconds: float = Field(120.0, ge=0)
    # For KV caches that outlive the worker, all models together; 0 stores none.
    disk_limit_bytes: int = Field(20 * 1024**3, ge=0)
    # Load the stored system-and-tools prefixes before the first request.
    warm_at_start: bool = True
    # For saying why a prompt was not reused: conversations remembered, the bytes of what is known
    # of them, and the newest explanations. In memory only.
    explain_conversations: int = Field(256, ge=1)
    explain_memory_bytes: int = Field(64 * 1024**2, ge=0)
    explain_requests: int = Field(1000, ge=1)
    # Between two looks at the machine's memory pressure.
    pressure_check_seconds: float = Field(5.0, gt=0)
    # How long status and `anyclaude` tell what a change of model did to the caches.
    notice_seconds: float = Field(3600.0, ge=0)
    # 0 keeps KV in the model's own type; 8 and 4 quantise it from the first token.
    kv_bits: Literal[0, 4, 8] = 0


class MlxSettings(_Section):
    """The MLX worker's scheduler."""

    prefill_chunk_tokens: int = Field(512, ge=16, le=8192)
    # Chunk while another request is decoding, so that it keeps its pace.
    shared_prefill_chunk_tokens: int = Field(256, ge=16, le=8192)
    decode_steps_per_turn: int = Field(8, ge=1)
    max_running_requests: int = Field(8, ge=1)
    max_queued_requests: int = Field(64, ge=0)
    # MLX's pool of freed buffers.
    buffer_cache_limit_bytes: int = Field(2 * 1024**3, ge=0)
    # Whether a model, and each request, is refused that does not fit into the machine's memory.
    memory_check: bool = True
    # Of that memory, left to everything else, a prefill's intermediate results included.
    memory_reserve_bytes: int = Field(256 * 1024**2, ge=0)
    stop_grace_seconds: float = Field(5.0, ge=0)


class RelaySettings(_Section):
    """The relay worker; the servers it asks are in `upstreams`."""

    # Answers in progress at a stop have this long to finish.
    stop_grace_seconds: float = Field(5.0, ge=0)


class AutoRule(_Section):
    """`[[auto.rules]]`: requests for which all conditions hold use these modes, in this order."""

    # Empty means every class.
    classes: list[Literal["main", "subagent", "compaction", "utility"]] = []
    tools_offered: bool | None = None
    # Whether the conversation holds a call already.
    tools_used: bool | None = None
    # Estimated from the request's length.
    over_tokens: int = Field(0, ge=0)
    # The next one is tried where one fails before its first byte.
    use: list[str] = Field(min_length=1)


class AutoSettings(_Section):
    """Mode auto; a request that no rule fits uses the servers of this machine, mlx-lm first."""

    rules: list[AutoRule] = []


class ChooserSettings(_Section):
    """What `anyclaude` asks on a terminal where no mode is given."""

    show: bool = True
    # The mode behind each workflow.
    analysis: str = "mlx-lm"
    edit: str = "lmstudio"
    cloud: str = "claude"


class SupervisorSettings(_Section):
    """How children are started again."""

    start_timeout_seconds: float = Field(600.0, gt=0)
    stop_timeout_seconds: float = Field(15.0, gt=0)
    # How long running requests and pending writes may take when a stop-first mode wants room.
    make_room_timeout_seconds: float = Field(300.0, gt=0)
    backoff_initial_seconds: float = Field(0.5, gt=0)
    backoff_max_seconds: float = Field(30.0, gt=0)
    # Ready for this long resets the backoff.
    stable_seconds: float = Field(60.0, gt=0)
    # This many deaths within crash_window_seconds and the supervisor gives up.
    crash_limit: int = Field(5, ge=1)
    crash_window_seconds: float = Field(120.0, gt=0)


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    file_max_bytes: int = Field(10 * 1024 * 1024, ge=4096)
    file_count: int = Field(5, ge=1)
    # Request records kept in the daemon's memory.
    max_records: int = Field(1000, ge=1)


class Settings(_Section):
    """All settings; also the shape of config.toml."""

    mode: str = "mlx-lm"
    server: ServerSettings = ServerSettings()
    model: ModelSettings = ModelSettings()
    cache: CacheSettings = CacheSettings()
    mlx: MlxSettings = MlxSettings()
    relay: RelaySettings = RelaySettings()
    auto: AutoSettings = AutoSettings()
    chooser: ChooserSettings = ChooserSettings()
    # By mode; the presets are always there.
    upstreams: dict[str, UpstreamSettings] = Field(default_factory=default_upstreams)
    supervisor: SupervisorSettings = SupervisorSettings()
    log: LogSettings = LogSettings()

    @field_validator("upstreams", mode="before")
    @classmethod
    def _complete_upstreams(cls, tables: Any) -> Any:
        return with_presets(tables)


class Origin(StrEnum):
    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


class SettingsError(Exception):
    """The settings cannot be used; the message names each key, its origin and what would fit."""


@dataclass(frozen=True)
class LoadedSettings:
    """Effective settings and where each value came from."""

    settings: Settings
    # Dotted key to origin, only for values that are not defaults.
    origins: Mapping[str, str]
    file: Path

    def entries(self) -> list[tuple[str, Any, str]]:
        """Every dotted key with its effective value and origin, in order of declaration."""
        flat = _flatten(self.settings.model_dump(mode="json"))
        return [(key, value, self.origins.get(key, Origin.DEFAULT)) for key, value in flat.items()]


# Named variables and the keys they set; the first one set wins.
ENVIRONMENT_NAMES: Final[tuple[tuple[str, str], ...]] = (
    ("ANYCLAUDE_PORT", "server.port"),
    ("ANYCLAUDE_MODE", "mode"),
    ("ANYCLAUDE_MODEL", "model.path"),
    ("MLX_LM_MODEL", "model.path"),
    ("MLX_MODEL_PATH", "model.path"),
    ("ANYCLAUDE_LOG_LEVEL", "log.level"),
    ("LMSTUDIO_URL", "upstreams.lmstudio.base_url"),
    ("LOCAL_URL", "upstreams.lmstudio.base_url"),
    ("LMSTUDIO_MODEL", "upstreams.lmstudio.model"),
    ("LOCAL_MODEL", "upstreams.lmstudio.model"),
    ("LMSTUDIO_CONTEXT_LENGTH", "upstreams.lmstudio.context_window_tokens"),
    ("LOCAL_CONTEXT_LENGTH", "upstreams.lmstudio.context_window_tokens"),
    ("MLX_LM_URL", "upstreams.mlx-lm.base_url"),
    ("OPENROUTER_BASE_URL", "upstreams.openrouter.base_url"),
    ("OPENROUTER_MODEL", "upstreams.openrouter.model"),
)
# Tables with keys of the user's own making: one value each, not sections.
_TABLES: Final = re.compile(r"upstreams\.[^.]+\.(models|headers|extra_body)")
# Any key: ANYCLAUDE__SERVER__PORT=49152.
ENVIRONMENT_PREFIX: Final = "ANYCLAUDE__"
# Where people put a key by mistake: an error about these does not repeat the value.
_MAY_HOLD_A_KEY: Final = re.compile(r"\.(api_key_env|base_url|headers)$")


def load(
    file: Path, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> LoadedSettings:
    """Merges the layers.

    Args:
        file: the TOML file; a missing one counts as empty.
        environ: the process environment.
        flags: dotted keys from the command line; None values are not set.

    Raises:
        SettingsError: with one line per problem.
    """
    layers = (
        (Origin.FILE, _from_file(file)),
        (Origin.ENVIRONMENT, _from_environment(environ)),
        (Origin.FLAG, {k: v for k, v in (flags or {}).items() if v is not None}),
    )
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    sources: dict[str, str] = {}
    for origin, layer in layers:
        for key, value in layer.items():
            values[key] = value
            origins[key] = origin
            sources[key] = _source(origin, key, file, environ)
    try:
        settings = Settings.model_validate(_nest(values))
    except ValidationError as error:
        raise SettingsError(_explain(error, sources)) from None
    return LoadedSettings(settings, origins, file)


def known_keys() -> list[str]:
    """Every dotted key, in order of declaration."""
    return list(_flatten(Settings().model_dump(mode="json")))


def _from_file(file: Path) -> dict[str, Any]:
    try:
        return _flatten(tomllib.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{file} is not valid TOML: {error}. Mend or remove the file."
        ) from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, key in ENVIRONMENT_NAMES:
        if environ.get(name) and key not in values:
            values[key] = environ[name]
    for name, text in environ.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            values[name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")] = text
    return values


def _source(origin: Origin, key: str, file: Path, environ: Mapping[str, str]) -> str:
    if origin is Origin.FILE:
        return str(file)
    if origin is Origin.FLAG:
        return "command line"
    named = [
        name for name, named_key in ENVIRONMENT_NAMES if named_key == key and environ.get(name)
    ]
    return f"environment {(named or [ENVIRONMENT_PREFIX + key.upper().replace('.', '__')])[0]}"


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    return "\n".join(_explain_one(dict(e), sources) for e in error.errors())


def _explain_one(error: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    source = next(
        (s for k, s in sources.items() if k == key or k.startswith(key + ".")), "settings"
    )
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]}?" if close else " See `anyclaudectl config` for all keys."
        return f"{source}: unknown key {key}.{hint}"
    if _MAY_HOLD_A_KEY.search(key):
        return f"{source}: {key}: {error['msg']}."
    return f"{source}: {key} = {json.dumps(error['input'], default=str)}: {error['msg']}."


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not _TABLES.fullmatch(name):
            flat |= _flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        node: Any = tree
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else node
        # A section that was given as a value stays one, for the validation to refuse.
        if isinstance(node, dict):
            node[leaf] = value
    return tree
