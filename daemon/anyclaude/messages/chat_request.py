"""A body of OpenAI's chat completions as the body of a Messages request.

What has no counterpart and changes the answer (`n` above 1, `logprobs`, tools other than functions)
is a 400 that names it; settings that only tune another service are left out.
Source: OpenAI's API reference, "Create chat completion".
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from anyclaude.messages.chat_images import data_source, image_block
from anyclaude.messages.errors import invalid_request

# For clients that set no limit; the model's window limits it too.
_MAX_TOKENS: Final = 32_000
_EFFORTS: Final = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}
_INSTRUCTIONS: Final = ("system", "developer")
_UNSUPPORTED: Final = (
    *("logprobs", "top_logprobs", "logit_bias", "audio"),
    *("functions", "function_call", "web_search_options"),
)


def messages_body(document: Any) -> dict[str, Any]:
    """The Messages request that a chat completion asks for.

    Raises:
        ApiError: 400 naming the field and what is wrong with it.
    """
    if not isinstance(document, dict):
        raise invalid_request("Input should be an object")
    _refuse_unsupported(document)
    system, messages = _conversation(document.get("messages"))
    body: dict[str, Any] = {
        "model": document.get("model"),
        "max_tokens": _first(document, "max_completion_tokens", "max_tokens") or _MAX_TOKENS,
        "messages": messages,
        "stream": bool(document.get("stream")),
    }
    if system:
        body["system"] = "\n\n".join(system)
    for name in ("temperature", "top_p", "top_k"):
        if document.get(name) is not None:
            body[name] = document[name]
    stop = document.get("stop")
    if stops := [stop] if isinstance(stop, str) else stop:
        body["stop_sequences"] = stops
    return body | _tools(document) | _output(document)


def tells_usage(document: Mapping[str, Any]) -> bool:
    """Whether a stream ends with the token counts."""
    options = document.get("stream_options")
    return isinstance(options, Mapping) and bool(options.get("include_usage"))


def _first(document: Mapping[str, Any], *names: str) -> Any:
    return next((document[name] for name in names if document.get(name) is not None), None)


def _refuse_unsupported(document: Mapping[str, Any]) -> None:
    if document.get("n") not in (None, 1):
        raise invalid_request("n: only one choice is generated here; leave it out or set it to 1")
    for name in _UNSUPPORTED:
        if document.get(name):
            raise invalid_request(f"{name}: this is not supported here; leave it out")


def _conversation(messages: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """The instructions before the first turn, and the turns."""
    if not isinstance(messages, list) or not messages:
        raise invalid_request("messages: Input should be an array of at least one message")
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(message, dict):
            raise invalid_request(f"{where}: Input should be an object")
        role = message.get("role")
        if role in _INSTRUCTIONS and not turns:
            system += [str(block.get("text") or "") for block in _blocks(message, where)]
        elif role == "tool" and turns and turns[-1].get("results"):
            turns[-1]["content"].append(_result(message, where))
        else:
            turns.append(_turn(message, where))
    if not turns:
        # Instructions alone are a question there; a Messages request needs a turn.
        return [], [{"role": "user", "content": "\n\n".join(system)}]
    return system, [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _turn(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    match message.get("role"):
        case "user":
            return {"role": "user", "content": _blocks(message, where)}
        case "assistant":
            return {"role": "assistant", "content": _answer(message, where)}
        case "tool":
            return {"role": "user", "content": [_result(message, where)], "results": True}
        case role if role in _INSTRUCTIONS:
            return {"role": "system", "content": _blocks(message, where)}
    raise invalid_request(
        f"{where}.role: Input should be 'system', 'developer', 'user', 'assistant' or 'tool'"
    )


def _answer(message: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    thought = message.get("reasoning_content")
    blocks: list[dict[str, Any]] = []
    if isinstance(thought, str) and thought:
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    blocks += _blocks(message, where)
    calls = message.get("tool_calls")
    for index, call in enumerate(calls if isinstance(calls, list) else ()):
        blocks.append(_call(call, f"{where}.tool_calls.{index}"))
    return blocks


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise invalid_request(f"{where}.function: Input should be an object")
    arguments = function.get("arguments") or "{}"
    try:
        given = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        # A call that was cut: the history stays readable.
        given = {"arguments": arguments}
    return {
        "type": "tool_use",
        "id": call.get("id"),
        "name": function.get("name"),
        "input": given if isinstance(given, dict) else {"arguments": given},
    }


def _result(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    call_id = message.get("tool_call_id")
    content = _blocks(message, where)
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


def _blocks(message: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    content = message.get("content")
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise invalid_request(f"{where}.content: Input should be a string or an array of parts")
    places = enumerate(content)
    return [_block(part, f"{where}.content.{index}") for index, part in places]


def _block(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    match kind:
        case "text" | "refusal":
            return {"type": "text", "text": part.get(kind)}
        case "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            if isinstance(url, str):
                return image_block(url)
            raise invalid_request(f"{where}.image_url.url: Input should be a valid string")
        case "file":
            file = part.get("file")
            return _file(file if isinstance(file, dict) else {})
        case str():
            # Read as what it says, like any block of an unknown type.
            return dict(part)
    raise invalid_request(f"{where}: a content part needs a string `type`")


def _file(file: Mapping[str, Any]) -> dict[str, Any]:
    data = file.get("file_data")
    source = data_source(data) if isinstance(data, str) else None
    source = source or {"type": "file", "file_id": str(file.get("file_id"))}
    return {"type": "document", "source": source, "title": file.get("filename")}


def _tools(document: Mapping[str, Any]) -> dict[str, Any]:
    offered = document.get("tools")
    if not offered:
        return {}
    if not isinstance(offered, list):
        raise invalid_request("tools: Input should be an array")
    fields: dict[str, Any] = {
        "tools": [_tool(tool, f"tools.{index}") for index, tool in enumerate(offered)]
    }
    choice = _choice(document.get("tool_choice"))
    if document.get("parallel_tool_calls") is False:
        choice["disable_parallel_tool_use"] = True
    return fields | {"tool_choice": choice}


def _tool(tool: Any, where: str) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type") != "function":
        raise invalid_request(f"{where}: only tools of type 'function' are supported here")
    return {
        "name": function.get("name"),
        "description": function.get("description") or "",
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }


def _choice(choice: Any) -> dict[str, Any]:
    match choice:
        case None | "auto" | "none":
            return {"type": choice or "auto"}
        case "required":
            return {"type": "any"}
        case {"type": "function", "function": {"name": str(name)}}:
            return {"type": "tool", "name": name}
    raise invalid_request(
        "tool_choice: Input should be 'auto', 'none', 'required' or an object that names a function"
    )


def _output(document: Mapping[str, Any]) -> dict[str, Any]:
    """The form of the answer, and how long the model may think about it."""
    fields: dict[str, Any] = {}
    config: dict[str, Any] = {}
    match document.get("response_format"):
        case None | {"type": "text"}:
            pass
        case {"type": "json_object"}:
            config["format"] = {"type": "json_schema", "schema": {"type": "object"}}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            config["format"] = {"type": "json_schema", "schema": schema}
        case _:
            raise invalid_request(
                "response_format: Input should be of type 'text', 'json_object' or 'json_schema'"
            )
    effort = document.get("reasoning_effort")
    if isinstance(effort, str) and effort in _EFFORTS:
        config["effort"] = _EFFORTS[effort]
        fields["thinking"] = {"type": "adaptive"}
    return fields | ({"output_config": config} if config else {})
