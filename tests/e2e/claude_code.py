"""The real Claude Code, run without a terminal against a service in its own network namespace.

The client sees nothing of the caller's environment: a home folder of its own, a short PATH, and
the variables that point it at the service. The attribution block is left on, since a service has
to cope with it.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.checkout import ROOT
from tests.e2e.namespace import Namespace
from tests.e2e.transcript import Transcript, parse_transcript

_BINARY_VARIABLE = "ANYCLAUDE_TEST_CLAUDE"
# On a busy machine the service computes the first prompt for minutes.
_RUN_SECONDS = 900.0
_INSTALLED = ROOT / ".venv" / "claude-code" / "claude"


class ClaudeCodeMissing(Exception):
    """There is no Claude Code binary to run; the message says how to get one."""


def find_binary() -> Path:
    """The binary named by ANYCLAUDE_TEST_CLAUDE, else the one installed in the checkout."""
    named = os.environ.get(_BINARY_VARIABLE)
    binary = Path(named) if named else _INSTALLED
    if not os.access(binary, os.X_OK):
        source = f"{_BINARY_VARIABLE}={named}" if named else f"{binary}"
        raise ClaudeCodeMissing(
            f"no Claude Code at {source}; run .ci/install-claude-code .venv/claude-code"
        )
    return binary


@dataclass(frozen=True, slots=True)
class ClaudeCode:
    """A client installation: which binary, whose home, which service."""

    binary: Path
    namespace: Namespace
    base_url: str
    home: Path
    model: str = "anyclaude-demo"
    context_tokens: int = 65536
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables to change; an empty one is taken away."""

    def ask(
        self,
        prompt: str,
        folder: Path,
        *,
        resume: bool = False,
        allowed_tools: Sequence[str] = (),
        options: Sequence[str] = (),
        timeout_seconds: float = _RUN_SECONDS,
    ) -> Transcript:
        """Runs one prompt in `folder` to its end; `resume` continues the folder's last one."""
        arguments = ["--output-format", "stream-json", "--verbose", *options]
        if resume:
            arguments.append("--continue")
        if allowed_tools:
            arguments += ["--allowedTools", ",".join(allowed_tools)]
        done = self.run(["-p", prompt, *arguments], folder, timeout_seconds=timeout_seconds)
        return parse_transcript(done.stdout, done.stderr, done.returncode)

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        input_text: str = "",
        timeout_seconds: float = _RUN_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Runs the client with these arguments in `folder`, for what `ask` does not cover."""
        return subprocess.run(
            self.namespace.command([str(self.binary), *arguments]),
            cwd=folder,
            env=self.variables,
            input=input_text,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment that the client sees."""
        variables = {
            "HOME": str(self.home),
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "IS_SANDBOX": "1",
            # Else a folder in /tmp named by user id, which runs would share.
            "CLAUDE_CODE_TMPDIR": str(self.home),
            "ANTHROPIC_BASE_URL": self.base_url,
            "ANTHROPIC_AUTH_TOKEN": "anyclaude",
            "ANTHROPIC_MODEL": self.model,
            # Not the newest family's variable: with it the instructions name our model as that one.
            "ANTHROPIC_DEFAULT_OPUS_MODEL": self.model,
            "ANTHROPIC_DEFAULT_SONNET_MODEL": self.model,
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": self.model,
            "CLAUDE_CODE_SUBAGENT_MODEL": self.model,
            "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(self.context_tokens),
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "8192",
            "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
            "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",
            **self.environment,
        }
        # An empty variable still counts as set for the client.
        return {name: value for name, value in variables.items() if value}
