"""The official client, the real front end and the real relay in front of a scripted server."""

from typing import Any, Self

import anthropic

from tests.integration.frontend_process import FrontendProcess, route
from tests.integration.relay_process import RelayProcess
from tests.integration.scripted_upstream import Script, ScriptedUpstream

TOOL: Any = {
    "name": "Bash",
    "description": "Runs a command.",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}},
}


class Chain:
    """Client, front end, relay, server; a context manager that ends them all."""

    def __init__(self, script: Script, dialect: str = "openai", **settings: Any) -> None:
        self.upstream = ScriptedUpstream(script)
        self._settings = {"kind": "other", "dialect": dialect, **settings}

    def __enter__(self) -> Self:
        self.upstream.__enter__()
        table = {**self._settings, "base_url": self.upstream.base_url}
        self.relay = RelayProcess({"it": table}).__enter__()
        self.frontend = FrontendProcess().__enter__()
        self.frontend.push(route(self.relay.socket_path, mode="it"), default_mode="it")
        url = self.frontend.base_url
        self.client = anthropic.Anthropic(base_url=url, api_key="any", max_retries=0)
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.frontend.__exit__(*error)
        self.relay.__exit__(*error)
        self.upstream.__exit__(*error)

    def stream(self, messages: Any, tools: Any = (TOOL,)) -> anthropic.types.Message:
        with self.client.messages.stream(
            model="claude-x", max_tokens=100, messages=messages, tools=list(tools)
        ) as running:
            return running.get_final_message()

    def whole(self, messages: Any, tools: Any = (TOOL,)) -> anthropic.types.Message:
        return self.client.messages.create(
            model="claude-x", max_tokens=100, messages=messages, tools=list(tools)
        )
