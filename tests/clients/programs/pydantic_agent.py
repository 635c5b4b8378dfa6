"""Agents of pydantic-ai, over both dialects."""

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from report import BASE_URL, COMMAND, LOOP_ENDS, check, report

anthropic = AnthropicModel("any", provider=AnthropicProvider(api_key="any", base_url=BASE_URL))
openai = OpenAIChatModel("any", provider=OpenAIProvider(api_key="any", base_url=f"{BASE_URL}/v1"))


class Title(BaseModel):
    """A title."""

    title: str = Field(max_length=40)


def loop(model) -> None:
    ran = []
    agent = Agent(model)

    @agent.tool_plain(name="Bash")
    def bash(command: str, description: str) -> str:
        """Run a command."""
        ran.append(command)
        return "hello"

    said = agent.run_sync("Go.")
    check(ran == [COMMAND], ran)
    check(said.output.startswith(LOOP_ENDS), said)


def anthropic_loop() -> None:
    """tool loop (Messages API)"""
    loop(anthropic)


def openai_loop() -> None:
    """tool loop (chat completions)"""
    loop(openai)


def anthropic_called() -> None:
    """structured answer by a demanded call (Messages API)"""
    said = Agent(anthropic, output_type=ToolOutput(Title)).run_sync("A title?")
    check(isinstance(said.output, Title), said)


def openai_schema() -> None:
    """structured answer by a schema (chat completions)"""
    said = Agent(openai, output_type=NativeOutput(Title)).run_sync("A title?")
    check(isinstance(said.output, Title), said)


report(["pydantic-ai-slim"], anthropic_loop, openai_loop, anthropic_called, openai_schema)
