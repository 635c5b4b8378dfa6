"""The official client for Python, with its own tool runner and its parser of answers."""

import anthropic
from anthropic import beta_tool
from pydantic import BaseModel, Field
from report import BASE_URL, COMMAND, LOOP_ENDS, check, report

client = anthropic.Anthropic(base_url=BASE_URL, api_key="any", max_retries=0)
ran = []


class Title(BaseModel):
    title: str = Field(max_length=40)


@beta_tool(name="Bash")
def bash(command: str, description: str) -> str:
    """Run a command.

    Args:
        command: The command.
        description: What it does.
    """
    ran.append(command)
    return "hello"


def tool_loop() -> None:
    """tool loop (`tool_runner`)"""
    runner = client.beta.messages.tool_runner(
        model="any", max_tokens=500, tools=[bash], messages=[{"role": "user", "content": "Go."}]
    )
    last = runner.until_done()
    check(ran == [COMMAND], ran)
    check(last.content[0].text.startswith(LOOP_ENDS), last)


def structured() -> None:
    """structured answer (`messages.parse`)"""
    said = client.messages.parse(
        model="any",
        max_tokens=500,
        output_format=Title,
        messages=[{"role": "user", "content": "A title?"}],
    )
    check(said.parsed_output.title, said)


def conversation() -> None:
    """conversation (`messages.thread` with `continue_unthreaded`)"""
    thread = client.beta.messages.thread(
        model="any", max_tokens=500, unsupported_request_behavior="continue_unthreaded"
    )
    first, second = (thread.send({"role": "user", "content": text}) for text in ("Hi.", "And?"))
    check(prompt_tokens(second) > prompt_tokens(first) + first.usage.output_tokens, second)


def prompt_tokens(message) -> int:
    usage = message.usage
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


report(["anthropic"], tool_loop, structured, conversation)
