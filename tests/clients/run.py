"""Runs SDKs and frameworks against the service on the demo model, and writes what each did.

    python -m tests.clients.run DIR --write docs/clients.md

`tests/clients/install DIR` installs them. Each has a program in `programs`, which runs in the
client's own environment and prints its versions and outcomes as JSON.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.clients.calling_server import calling_server, upstream_settings
from tests.integration.service import Service

_PROGRAMS: Final = Path(__file__).parent / "programs"
# Claude Code answers several times, on a machine that may be busy.
_RUN_SECONDS: Final = 600
_BEGIN: Final = "<!-- clients: begin -->\n"
_END: Final = "<!-- clients: end -->\n"


@dataclass(frozen=True)
class Client:
    name: str
    # Its folder below DIR, and its program.
    folder: str
    program: str

    def command(self, installed: Path) -> list[str]:
        folder, program = installed / self.folder, str(_PROGRAMS / self.program)
        if self.folder == "node":
            return ["node", program, str(folder)]
        return [str(folder / "bin" / "python"), program]


CLIENTS: Final = (
    Client("Anthropic SDK for Python", "anthropic", "anthropic_sdk.py"),
    Client("Anthropic SDK for Python, its source", "anthropic", "anthropic_own.py"),
    Client("Anthropic SDK for TypeScript", "node", "anthropic_sdk.mjs"),
    Client("OpenAI SDK for Python", "openai", "openai_sdk.py"),
    Client("OpenAI SDK for Python, its source", "openai", "openai_own.py"),
    Client("LangChain", "langchain", "langchain_models.py"),
    Client("pydantic-ai", "pydantic-ai", "pydantic_agent.py"),
    Client("Vercel AI SDK", "node", "vercel.mjs"),
    Client("litellm", "litellm", "litellm_sdk.py"),
    Client("llm", "llm", "llm_tool.py"),
    Client("aider", "aider", "aider_chat.py"),
    Client("Claude Agent SDK", "agent-sdk", "agent_sdk.py"),
)


@dataclass(frozen=True)
class Run:
    """What one program printed."""

    client: Client
    versions: Mapping[str, str] = field(default_factory=dict)
    # By what it did: "passed", or "failed: " or "not run: " with the reason.
    results: Mapping[str, str] = field(default_factory=dict)


def run(client: Client, installed: Path, base_url: str) -> Run:
    """Runs one client; a program that prints nothing counts as one failure."""
    with tempfile.TemporaryDirectory(prefix="ac-clients-") as folder:
        environ = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "TMPDIR": folder}
        done = subprocess.run(
            [*client.command(installed), base_url],
            env=os.environ | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
        )
    print(done.stderr, file=sys.stderr)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return Run(client, results={"start": f"failed: exit code {done.returncode}"})
    return Run(client, **json.loads(lines[-1]))


def rows(done: Run) -> list[str]:
    """One row for each thing that a client did."""
    versions = ", ".join(f"{name} {number}" for name, number in done.versions.items())
    return [
        f"| {done.client.name} | {versions} | {what} | {outcome.replace('|', '/')} |\n"
        for what, outcome in done.results.items()
    ]


def table(written: Mapping[str, list[str]]) -> str:
    """The rows by client, in the order of `CLIENTS`, with their counts."""
    lines = [row for client in CLIENTS for row in written.get(client.name, [])]
    passed = sum("| passed" in row for row in lines)
    run_at_all = sum("| not run: " not in row for row in lines)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    head = "| Client | Version | What it ran | Result |\n|---|---|---|---|\n"
    return f"{today}: {passed} of {run_at_all} passed.\n\n{head}{''.join(lines)}"


def rows_of(page: Path) -> dict[str, list[str]]:
    """The rows that stand between the marks of the page, by client."""
    found: dict[str, list[str]] = {}
    text = page.read_text().partition(_BEGIN)[2].partition(_END)[0]
    for line in text.splitlines(keepends=True):
        if line.startswith("| "):
            found.setdefault(line.split(" | ")[0].removeprefix("| "), []).append(line)
    return found


def write(page: Path, text: str) -> None:
    """Replaces what stands between the marks of the page."""
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(before + _BEGIN + text + _END + after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("installed", type=Path)
    parser.add_argument("--write", type=Path, help="rows of clients that do not run stay")
    parser.add_argument("--only", default="", help="a part of the names of the programs to run")
    asked = parser.parse_args()
    chosen = [client for client in CLIENTS if asked.only in client.program]
    with calling_server() as server, Service(**upstream_settings(server)) as service:
        base_url = service.ready().base_url
        runs = [run(client, asked.installed.resolve(), base_url) for client in chosen]
    new = {each.client.name: rows(each) for each in runs}
    print(table(new))
    if asked.write:
        write(asked.write, table(rows_of(asked.write) | new))
    sys.exit(any("| failed: " in row for each in new.values() for row in each))


if __name__ == "__main__":
    main()
