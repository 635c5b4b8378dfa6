"""An MCP server with many tools over standard input and output, as Claude Code starts it.

Usage: mcp_server.py TOOLS

Each tool `tool_N` returns the number N and the word that it is given. Source: the MCP
specification, "Lifecycle", "Tools" and the stdio transport.
"""

import json
import sys
from typing import Any


def main() -> None:
    count = int(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            answer = {"jsonrpc": "2.0", "id": request["id"], "result": _result(request, count)}
            print(json.dumps(answer), flush=True)


def _result(request: dict[str, Any], count: int) -> dict[str, Any]:
    given = request.get("params") or {}
    match request["method"]:
        case "initialize":
            return {
                "protocolVersion": given.get("protocolVersion", "2025-06-18"),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "many", "version": "1"},
            }
        case "tools/list":
            return {"tools": [_tool(number) for number in range(count)]}
        case "tools/call":
            text = f"{given['name']} got {given['arguments'].get('word')}"
            return {"content": [{"type": "text", "text": text}]}
    return {}


def _tool(number: int) -> dict[str, Any]:
    return {
        "name": f"tool_{number}",
        "description": f"Repeats a word for purpose number {number}.",
        "inputSchema": {
            "type": "object",
            "properties": {"word": {"type": "string"}},
            "required": ["word"],
        },
    }


if __name__ == "__main__":
    main()
