"""The environment that points Claude Code at this service.

Each name is documented at https://code.claude.com/docs/en/env-vars. The bundle asks for what a
local model can give: one model for every role, its true context window, patience while a prompt is
computed, and no request that only a cloud answers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.runtime.mode_names import current_name

if TYPE_CHECKING:
    from anyclaude.cli.client import ControlClient
    from anyclaude.worker.v1.worker_pb2 import ModelInfo

MODE_HEADER: Final = "x-anyclaude-mode"
# Requests of this mode go to the real API unchanged: credentials and model stay the user's.
PASSTHROUGH_MODE: Final = "claude"
# Claude Code asks for a login without one; a service that wants none ignores it.
NO_TOKEN: Final = "anyclaude"  # noqa: S105 - no secret, a word in its place

_MODEL_NAMES: Final = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_FABLE_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "CLAUDE_CODE_SUBAGENT_MODEL",
)
# They would lead Claude Code elsewhere, or past the token.
_OTHER_ROADS: Final = frozenset(
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
# Advice, not identity: what the user's shell says of these stands.
ADVICE: Final[dict[str, str]] = {
    # Prefill of a long prompt is minutes of silence on a small machine.
    "API_TIMEOUT_MS": "1800000",
    "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "1800000",
    "API_FORCE_IDLE_TIMEOUT": "0",
    # A second, non-streaming try would run tools twice.
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
    # The attribution block changes per conversation and stands before everything shared.
    "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
    "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
    "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION": "false",
    "CLAUDE_CODE_ENABLE_AWAY_SUMMARY": "0",
    # Ten subagents at once make one machine slower for each.
    "CLAUDE_CODE_MAX_TOOL_USE_CONCURRENCY": "3",
}
_MAX_OUTPUT_TOKENS: Final = 16_384
_MIN_OUTPUT_TOKENS: Final = 4_096


@dataclass(frozen=True)
class Endpoint:
    """The service as one launch of Claude Code sees it."""

    base_url: str
    # The service's, unless this launch has one of its own.
    mode: str
    # The mode that this launch alone asks for; empty for the service's.
    launch_mode: str
    model_id: str
    context_window_tokens: int
    auth_token: str

    @property
    def is_passthrough(self) -> bool:
        return self.mode == PASSTHROUGH_MODE

    @classmethod
    def of(cls, client: "ControlClient", environ: Mapping[str, str]) -> "Endpoint":
        """Asks the daemon.

        Raises:
            CommandError: the daemon cannot be asked, the token file cannot be read, or
                ANYCLAUDE_MODE names no mode.
        """
        status = client.status()
        launch_mode = launch_mode_of(environ)
        model = status.model
        if launch_mode and launch_mode != status.mode:
            model = _model_of(client, launch_mode)
        return cls(
            base_url=status.base_url,
            mode=launch_mode or status.mode,
            launch_mode=launch_mode,
            model_id=model.id,
            context_window_tokens=model.context_window_tokens,
            auth_token=_token(client),
        )


def _model_of(client: "ControlClient", mode: str) -> "ModelInfo":
    """What answers in `mode`; empty when nobody knows, and Claude Code's own choice stands."""
    from anyclaude.worker.v1 import worker_pb2

    found = (known.model for known in client.modes().modes if known.name == mode)
    return next(found, worker_pb2.ModelInfo())


def launch_mode_of(environ: Mapping[str, str]) -> str:
    """Today's name of the mode in ANYCLAUDE_MODE; empty when there is none.

    Raises:
        CommandError: USAGE when it could not be the value of a header.
    """
    word = environ.get("ANYCLAUDE_MODE", "")
    if not word.isprintable():
        raise CommandError(
            ExitCode.USAGE, f"ANYCLAUDE_MODE={word!r} is no mode. See `anyclaudectl mode`."
        )
    return current_name(word)[0]


def environment_for(endpoint: Endpoint, environ: Mapping[str, str]) -> dict[str, str]:
    """The bundle; `environ` is the launching shell's."""
    bundle = {"ANTHROPIC_BASE_URL": endpoint.base_url}
    headers = _headers(endpoint.launch_mode, environ)
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


def contradicting(endpoint: Endpoint) -> frozenset[str]:
    """Names that must not reach Claude Code from the shell."""
    if endpoint.is_passthrough:
        return _OTHER_ROADS
    return _OTHER_ROADS | _CREDENTIALS | {*_MODEL_NAMES, "ANTHROPIC_SMALL_FAST_MODEL"}


def _max_output(window_tokens: int) -> int:
    # Claude Code compacts at the window less this less 13,000, so a small window gets a small one.
    return min(_MAX_OUTPUT_TOKENS, max(_MIN_OUTPUT_TOKENS, window_tokens // 8))


def _headers(launch_mode: str, environ: Mapping[str, str]) -> str:
    """The shell's own headers, one a line, and the mode of this launch."""
    lines = [
        line
        for line in environ.get("ANTHROPIC_CUSTOM_HEADERS", "").splitlines()
        if line.strip() and not line.lower().startswith(f"{MODE_HEADER}:")
    ]
    return "\n".join([*lines, f"{MODE_HEADER}: {launch_mode}"] if launch_mode else lines)


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
