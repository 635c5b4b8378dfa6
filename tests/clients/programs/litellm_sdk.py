"""litellm, which translates to the Messages API and to chat completions."""

import json
import os

# Otherwise it asks GitHub for lists of prices and headers.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"] = "True"
import litellm
from pydantic import BaseModel
from report import BASE_URL, COMMAND, LOOP_ENDS, check, report

WAYS = {
    "anthropic": {"model": "anthropic/claude-sonnet-4-5", "api_base": BASE_URL},
    "openai": {"model": "openai/any", "api_base": f"{BASE_URL}/v1"},
}
PARAMETERS = {
    "type": "object",
    "properties": {"command": {"type": "string"}, "description": {"type": "string"}},
    "required": ["command", "description"],
}
TOOL = {"type": "function", "function": {"name": "Bash", "parameters": PARAMETERS}}


class Title(BaseModel):
    title: str


def ask(way: str, messages: list, **fields):
    common = {"api_key": "any", "max_tokens": 500, "num_retries": 0}
    return litellm.completion(messages=messages, **WAYS[way], **common, **fields)


def loop(way: str) -> None:
    messages = [{"role": "user", "content": "Go."}]
    said = ask(way, messages, tools=[TOOL]).choices[0].message
    (call,) = said.tool_calls
    check(json.loads(call.function.arguments)["command"] == COMMAND, call)
    messages += [said, {"role": "tool", "tool_call_id": call.id, "content": "hello"}]
    chunks = ask(way, messages, tools=[TOOL], stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    check(text.startswith(LOOP_ENDS), text)


def structured(way: str) -> None:
    said = ask(way, [{"role": "user", "content": "A title?"}], response_format=Title)
    check(Title.model_validate_json(said.choices[0].message.content), said)


def anthropic_loop() -> None:
    """tool loop (Messages API)"""
    loop("anthropic")


def openai_loop() -> None:
    """tool loop (chat completions)"""
    loop("openai")


def anthropic_schema() -> None:
    """structured answer (Messages API)"""
    structured("anthropic")


def openai_schema() -> None:
    """structured answer (chat completions)"""
    structured("openai")


report(["litellm"], anthropic_loop, openai_loop, anthropic_schema, openai_schema)
