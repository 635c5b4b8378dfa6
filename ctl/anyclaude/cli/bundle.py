"""The environment that points Claude Code at this service.

Each name is documented at https://code.claude.com/docs/en/env-vars. The values suit a local model:
one model for every role, its true context window, long timeouts for the prefill of a long prompt,
and no requests that only a cloud service can answer.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.runtime.headers import LAUNCH_HEADER, MODE_HEADER
from anyclaude.runtime.mode_names import current_name

if TYPE_CHECKING:
    from anyclaude.cli.client import ControlClient
    from anyclaude.worker.v1.worker_pb2 import ModelInfo

# Requests of this mode go to the real API unchanged, with the user's credentials and model.
PASSTHROUGH_MODE: Final = "claude"
# Without a token Claude Code asks for a login. A service that needs no token ignores this one.
NO_TOKEN: Final = "anyclaude"  # noqa: S105 - a placeholder, not a secret

_MODEL_NAMES: Final = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_FABLE_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "CLAUDE_CODE_SUBAGENT_MODEL",
)
# These would make Claude Code use another server.
_OTHER_SERVERS: Final = frozenset(
    {
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_BEDROCK_BASE_URL",
        "ANTHROPIC_VERTEX_BASE_URL",
        "ANTHROPIC_FOUNDRY_BASE_URL",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_VERTEX",
        "CLAUDE_CODE_USE_FOUNDRY",
    }
)
_CREDENTIALS: Final = frozenset(
    {"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"}
)
# Tuning only: a value that the user's shell sets wins over these.
ADVICE: Final[dict[str, str]] = {
    # On a small machine the prefill of a long prompt takes minutes, without any output.
    "API_TIMEOUT_MS": "1800000",
    "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "1800000",
    "API_FORCE_IDLE_TIMEOUT": "0",
    # A second request without streaming would run tools twice.
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    # The attribution block differs between conversations and precedes their shared prefix.
    "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
    "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
    "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION": "false",
    "CLAUDE_CODE_ENABLE_AWAY_SUMMARY": "0",
    # Ten subagents at once would slow each other down; further ones wait, or are refused.
    "CLAUDE_CODE_MAX_TOOL_USE_CONCURRENCY": "3",
    "CLAUDE_CODE_MAX_CONCURRENT_SUBAGENTS": "4",
}
# Both spellings: programs read one or the other.
NO_PROXY: Final = ("NO_PROXY", "no_proxy")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_MAX_OUTPUT_TOKENS: Final = 16_384
_MIN_OUTPUT_TOKENS: Final = 4_096


@dataclass(frozen=True)
class Endpoint:
    """The service as one launch of Claude Code sees it."""

    base_url: str
    # The mode of this launch, or else of the service.
    mode: str
    # The mode that only this launch uses; empty: the service's mode.
    launch_mode: str
    model_id: str
    context_window_tokens: int
    auth_token: str
    # Names this launch in its requests; empty: they are not told from others.
    launch_id: str = ""

    @property
    def is_passthrough(self) -> bool:
        return self.mode == PASSTHROUGH_MODE

    @classmethod
    def of(
        cls, client: "ControlClient", environ: Mapping[str, str], launch_id: str = ""
    ) -> "Endpoint":
        """Reads from the daemon everything that this launch needs to know.

        In a passthrough mode a launch has no id, since nothing is known of its requests.

        Raises:
            CommandError: the daemon does not respond, the token file cannot be read, or
                ANYCLAUDE_MODE names no mode.
        """
        status = client.status()
        launch_mode = launch_mode_of(environ, _mode_names(client, environ))
        model = status.model
        if launch_mode and launch_mode != status.mode:
            model = _model_of(client, launch_mode)
        mode = launch_mode or status.mode
        return cls(
            base_url=status.base_url,
            mode=mode,
            launch_mode=launch_mode,
            model_id=model.id,
            context_window_tokens=model.context_window_tokens,
            auth_token=_token(client),
            launch_id="" if mode == PASSTHROUGH_MODE else launch_id,
        )


def _model_of(client: "ControlClient", mode: str) -> "ModelInfo":
    """The model of `mode`; empty when it is unknown, so that Claude Code chooses the name."""
    from anyclaude.worker.v1 import worker_pb2

    found = (known.model for known in client.modes().modes if known.name == mode)
    return next(found, worker_pb2.ModelInfo())


def _mode_names(client: "ControlClient", environ: Mapping[str, str]) -> list[str]:
    return [mode.name for mode in client.modes().modes] if environ.get("ANYCLAUDE_MODE") else []


def launch_mode_of(environ: Mapping[str, str], known: Collection[str]) -> str:
    """The current name of the mode in ANYCLAUDE_MODE; empty when it is not set.

    A server of the configuration may have a historic name, and then `known` contains it.

    Raises:
        CommandError: USAGE when the value cannot be sent in a header.
    """
    word = environ.get("ANYCLAUDE_MODE", "")
    if not word.isprintable():
        raise CommandError(
            ExitCode.USAGE, f"ANYCLAUDE_MODE={word!r} is not a mode. See `anyclaudectl mode`."
        )
    return word if word in known else current_name(word)[0]


def environment_for(endpoint: Endpoint, environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables for Claude Code; `environ` is the environment of the shell."""
    bundle = {"ANTHROPIC_BASE_URL": endpoint.base_url, **without_proxy(environ)}
    headers = _headers(endpoint, environ)
    if headers:
        bundle["ANTHROPIC_CUSTOM_HEADERS"] = headers
    if endpoint.is_passthrough:
        return bundle
    bundle["ANTHROPIC_AUTH_TOKEN"] = endpoint.auth_token or NO_TOKEN
    if endpoint.model_id:
        bundle |= dict.fromkeys(_MODEL_NAMES, endpoint.model_id)
    if endpoint.context_window_tokens:
        window = endpoint.context_window_tokens
        bundle["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(window)
        bundle["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(_max_output(window))
    return bundle | ADVICE


def without_proxy(*environments: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep requests to this machine away from the user's HTTP proxy.

    A proxy would get the prompt in clear, or refuse to connect back to this machine. The hosts that
    the user's own variables exempt stay exempt.
    """
    hosts = [
        host
        for environ in environments
        for name in NO_PROXY
        for entry in environ.get(name, "").split(",")
        if (host := entry.strip())
    ]
    return dict.fromkeys(NO_PROXY, ",".join(dict.fromkeys([*hosts, *_LOOPBACK])))


def contradicting(endpoint: Endpoint) -> frozenset[str]:
    """Returns the variables of the shell that must not reach Claude Code."""
    if endpoint.is_passthrough:
        return _OTHER_SERVERS
    return _OTHER_SERVERS | _CREDENTIALS | {*_MODEL_NAMES, "ANTHROPIC_SMALL_FAST_MODEL"}


def _max_output(window_tokens: int) -> int:
    # Claude Code compacts a conversation at the window minus this value minus 13,000.
    return min(_MAX_OUTPUT_TOKENS, max(_MIN_OUTPUT_TOKENS, window_tokens // 8))


def _headers(endpoint: Endpoint, environ: Mapping[str, str]) -> str:
    """The shell's own headers, one per line, and those with the mode and the id of this launch."""
    ours = {MODE_HEADER: endpoint.launch_mode, LAUNCH_HEADER: endpoint.launch_id}
    lines = [
        line
        for line in environ.get("ANTHROPIC_CUSTOM_HEADERS", "").splitlines()
        if line.strip() and line.partition(":")[0].strip().lower() not in ours
    ]
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in ours.items() if value)])


def _token(client: "ControlClient") -> str:
    entries = {entry.key: entry.value_json for entry in client.config().entries}
    name = json.loads(entries.get("server.auth_token_file", '""'))
    if not name:
        return ""
    try:
        return Path(name).expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED,
            f"The token file {name} (server.auth_token_file) cannot be read: {error.strerror}.",
        ) from None
