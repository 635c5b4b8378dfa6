"""The official client for OpenAI's API, with its parser of tools and answers."""

import openai
from pydantic import BaseModel, Field
from report import BASE_URL, COMMAND, LOOP_ENDS, check, report

client = openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key="any", max_retries=0)


class Title(BaseModel):
    title: str = Field(max_length=40)


class Bash(BaseModel):
    """Run a command."""

    command: str
    description: str


def tool_loop() -> None:
    """tool loop (`chat.completions.stream`)"""
    tools = [openai.pydantic_function_tool(Bash)]
    messages = [{"role": "user", "content": "Go."}]
    with client.chat.completions.stream(model="any", messages=messages, tools=tools) as stream:
        for _ in stream:
            pass
        said = stream.get_final_completion().choices[0].message
    (call,) = said.tool_calls
    check(call.function.parsed_arguments.command == COMMAND, call)
    messages += [
        said.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "hello"},
    ]
    last = client.chat.completions.create(model="any", messages=messages, tools=tools)
    check(last.choices[0].message.content.startswith(LOOP_ENDS), last)


def structured() -> None:
    """structured answer (`chat.completions.parse`)"""
    messages = [{"role": "user", "content": "A title?"}]
    said = client.chat.completions.parse(model="any", messages=messages, response_format=Title)
    check(said.choices[0].message.parsed.title, said)


report(["openai"], tool_loop, structured)
