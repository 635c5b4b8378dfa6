"""The tools that a request offers to a model which runs none itself.

System messages inside the conversation change what is offered: `tool_addition` names a declared
tool or defines one, `tool_removal` withdraws one. Source: "Mid-conversation system messages and
tool changes" in Anthropic's documentation.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from anyclaude.messages.errors import invalid_request
from anyclaude.messages.published_tools import is_unsupported
from anyclaude.messages.requests import CountTokensRequest, Tool
from anyclaude.messages.schemas import as_object

# Claude Code declares it so that a request has a deferred tool; it cannot be called.
_PLACEHOLDER: Final = "DeferredToolPlaceholder"
_SERVER_SEARCH: Final = "tool_search_tool_"
_NO_CALLS: Final = "tools (this model makes no tool calls)"


def declared_tools(request: CountTokensRequest) -> list[Tool]:
    """The client tools of the request's `tools`, whether or not they are offered at the end.

    Raises:
        ApiError: 400 for a tool that the caller runs and that cannot be offered here.
    """
    for index, tool in enumerate(request.tools):
        if is_unsupported(tool.type or ""):
            raise invalid_request(
                f"tools.{index}: {tool.type} is not supported by the model that answers. Declare "
                "its tools with an `input_schema`, or use a mode whose server knows them."
            )
    return [tool for tool in request.tools if tool.is_client_tool and tool.name != _PLACEHOLDER]


def defined_tools(request: CountTokensRequest) -> dict[str, Tool]:
    """The client tools that system messages define, by name; of several, the first.

    Raises:
        ApiError: 400 for a definition that is no tool, with its place.
    """
    defined: dict[str, Tool] = {}
    for where, block in _changes(request):
        tool = definition_in(block, where)
        if tool is not None and tool.is_client_tool:
            defined.setdefault(tool.name, tool)
    return defined


def offered_tools(request: CountTokensRequest) -> list[Tool]:
    """The client tools that the model may call now; errors as for the functions above."""
    declared = declared_tools(request)
    known = {**defined_tools(request), **{tool.name: tool for tool in declared}}
    offered = {tool.name: tool for tool in declared}
    for where, block in _changes(request):
        tool = definition_in(block, where)
        name = tool.name if tool is not None else name_in(block)
        if block["type"] == "tool_removal":
            offered.pop(name, None)
        elif tool is not None and tool.is_client_tool:
            offered[name] = tool
        elif name in known:
            offered[name] = known[name]
    return list(offered.values())


def check_demanded(request: CountTokensRequest) -> None:
    """Refuses a `tool_choice` that demands a tool which the model cannot call.

    Raises:
        ApiError: 400
    """
    chosen = request.tool_choice
    if chosen.type == "tool" and chosen.name not in {t.name for t in offered_tools(request)}:
        raise invalid_request(
            f"tool_choice.name: {chosen.name} cannot be called, since nothing here runs it. Demand "
            "a tool that has an `input_schema`, or use a mode whose server runs this one."
        )


def defers_tools(request: CountTokensRequest) -> bool:
    """Whether tools with `defer_loading` are found by a tool of the client's own.

    Nothing here runs the API's search for tools, so with that one they would never be found.
    """
    return not any((tool.type or "").startswith(_SERVER_SEARCH) for tool in request.tools)


def not_served(request: CountTokensRequest, *, calls_tools: bool = True) -> list[str]:
    """What a request asks for that a local model does not do.

    Server tools and MCP servers run on Anthropic's service alone. If the model makes no calls
    (`calls_tools` is False), the client's own tools are of no use either.
    """
    own = any(tool.is_client_tool for tool in request.tools)
    names = [_NO_CALLS] if own and not calls_tools else []
    names += [
        f"{tool.type} {tool.name}" if tool.type == "mcp_toolset" else str(tool.type)
        for tool in request.tools
        if not tool.is_client_tool
    ]
    servers = (request.model_extra or {}).get("mcp_servers")
    for server in servers if isinstance(servers, list) else ():
        name = server.get("name") if isinstance(server, Mapping) else None
        names.append(f"mcp_servers {name}" if isinstance(name, str) else "mcp_servers")
    return names


def definition_in(block: Mapping[str, Any], where: str) -> Tool | None:
    """The tool that a `tool_addition` defines; None if it only names one.

    Raises:
        ApiError: 400 for a definition that is no tool, with its place.
    """
    change = block.get("tool")
    if not isinstance(change, Mapping) or "definition" not in change:
        return None
    try:
        return Tool.model_validate(change["definition"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(["tool.definition", *map(str, first["loc"])])
        message = first["msg"].removeprefix("Value error, ")
        raise invalid_request(f"{where}.{place}: {message}") from None


def name_in(block: Mapping[str, Any]) -> str:
    """The name of the tool that a `tool_addition` or `tool_removal` refers to; empty if none."""
    change = as_object(block.get("tool"))
    name = change.get("name", change.get("tool_name"))
    return name if isinstance(name, str) else ""


def _changes(request: CountTokensRequest) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, message in enumerate(request.messages):
        if message.role == "system" and not isinstance(message.content, str):
            for position, block in enumerate(message.content):
                if block["type"] in ("tool_addition", "tool_removal"):
                    yield f"messages.{index}.content.{position}", block
