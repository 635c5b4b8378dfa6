"""A server whose model calls the first tool that it is offered, once, and then says so.

The demo model calls a tool named `Bash` only, so this stands behind mode `calling` for clients that
bring tools of their own.
"""

import json
from collections.abc import Sequence
from typing import Any

from tests.integration.scripted_upstream import (
    STREAM,
    Request,
    ScriptedUpstream,
    Step,
    chunk,
    event,
    openai_server,
)


def calling_server() -> ScriptedUpstream:
    return ScriptedUpstream(openai_server(_answer))


def upstream_settings(server: ScriptedUpstream) -> dict[str, str]:
    """The variables that make the server the one of mode `calling`."""
    fields = {"BASE_URL": server.base_url, "DIALECT": "openai", "MODEL": "served"}
    return {f"ANYCLAUDE__UPSTREAMS__CALLING__{name}": value for name, value in fields.items()}


def _answer(request: Request) -> Sequence[Step]:
    asked = request.json
    called = any(message["role"] == "tool" for message in asked["messages"])
    if called or not asked.get("tools"):
        said = chunk("stop", content="The tool was called." if called else "No tool is offered.")
        return [STREAM, said, event("[DONE]")]
    tool = asked["tools"][0]["function"]
    function = {"name": tool["name"], "arguments": json.dumps(_arguments(tool["parameters"]))}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    return [STREAM, chunk("tool_calls", tool_calls=[call]), event("[DONE]")]


def _arguments(schema: dict[str, Any]) -> dict[str, str]:
    """A value for each property, all of which are strings in the tools that clients bring."""
    properties = schema.get("properties", {})
    return {name: each.get("enum", ["anything"])[0] for name, each in properties.items()}
