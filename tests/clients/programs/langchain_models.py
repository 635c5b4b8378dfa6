"""LangChain's models of both dialects."""

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field
from report import BASE_URL, COMMAND, LOOP_ENDS, check, report

anthropic = ChatAnthropic(
    model="any", base_url=BASE_URL, api_key="any", max_retries=0, max_tokens=500
)
openai = ChatOpenAI(
    model="any", base_url=f"{BASE_URL}/v1", api_key="any", max_retries=0, max_tokens=500
)


class Title(BaseModel):
    """A title."""

    title: str = Field(max_length=40)


@tool("Bash")
def bash(command: str, description: str) -> str:
    """Run a command."""
    return "hello"


def loop(model) -> None:
    bound = model.bind_tools([bash])
    messages = [HumanMessage("Go.")]
    messages.append(bound.invoke(messages))
    (call,) = messages[-1].tool_calls
    check(call["args"]["command"] == COMMAND, call)
    messages.append(bash.invoke(call))
    said = None
    for chunk in bound.stream(messages):
        said = chunk if said is None else said + chunk
    check(said.text.startswith(LOOP_ENDS), said)


def anthropic_loop() -> None:
    """tool loop (`langchain-anthropic`)"""
    loop(anthropic)


def openai_loop() -> None:
    """tool loop (`langchain-openai`)"""
    loop(openai)


def anthropic_called() -> None:
    """structured answer by a demanded call (`langchain-anthropic`)"""
    said = anthropic.with_structured_output(Title).invoke("A title?")
    check(isinstance(said, Title), said)


def anthropic_schema() -> None:
    """structured answer by a schema (`langchain-anthropic`)"""
    said = anthropic.with_structured_output(Title, method="json_schema").invoke("A title?")
    check(isinstance(said, Title), said)


def openai_schema() -> None:
    """structured answer by a schema (`langchain-openai`)"""
    said = openai.with_structured_output(Title, method="json_schema").invoke("A title?")
    check(isinstance(said, Title), said)


report(
    ["langchain-anthropic", "langchain-openai"],
    anthropic_loop,
    openai_loop,
    anthropic_called,
    anthropic_schema,
    openai_schema,
)
