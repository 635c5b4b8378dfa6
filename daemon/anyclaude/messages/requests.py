"""A Messages request as clients send it.

The types are open: unknown fields, block types and betas are kept and never refused, since Claude
Code adds some with every release. Only fields that a response needs are checked.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from anyclaude.messages.errors import ApiError, invalid_request

# They replace pydantic's messages, which name Python types.
_IN_JSON: Final = {
    "model_type": "Input should be an object",
    "dict_type": "Input should be an object",
    "list_type": "Input should be an array",
}


def _has_type(block: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(block.get("type"), str):
        raise ValueError("a content block needs a string `type`")
    return block


Block = Annotated[dict[str, Any], AfterValidator(_has_type)]


def inner_blocks(content: object, where: str) -> list[dict[str, Any]]:
    """The content of a block as a list of blocks; a request's type does not check it.

    Raises:
        ApiError: 400 naming what is not a block, and its place.
    """
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise invalid_request(f"{where}: Input should be a string or a list of blocks")
    for index, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise invalid_request(f"{where}.{index}: a content block needs a string `type`")
    return content


def _images(block: Mapping[str, Any]) -> int:
    if block.get("type") == "image":
        return 1
    inner = block.get("content")
    parts = inner if isinstance(inner, list) else []
    return sum(isinstance(part, dict) and part.get("type") == "image" for part in parts)


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Message(_Open):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]

    def blocks(self) -> list[dict[str, Any]]:
        """The content as blocks, whichever form it came in."""
        if isinstance(self.content, str):
            return [{"type": "text", "text": self.content}]
        return self.content


class Tool(_Open):
    """A client tool, or a server tool (whose `type` is neither absent nor "custom")."""

    name: str
    type: str | None = None
    description: str = ""
    input_schema: dict[str, Any] | None = None

    @property
    def is_client_tool(self) -> bool:
        return self.type in (None, "custom")


class ToolChoice(_Open):
    type: Literal["auto", "any", "tool", "none"] = "auto"
    name: str | None = None
    disable_parallel_tool_use: bool = False

    @model_validator(mode="after")
    def _names_the_tool(self) -> Self:
        if self.type == "tool" and self.name is None:
            raise ValueError("type `tool` needs the `name` of one")
        return self


class CountTokensRequest(_Open):
    """What `/v1/messages/count_tokens` needs; generation needs more."""

    model: str
    messages: list[Message] = Field(min_length=1)
    system: str | list[Block] = ""
    tools: list[Tool] = Field(default_factory=list)
    tool_choice: ToolChoice = ToolChoice()
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None

    @classmethod
    def of(cls, document: Any) -> Self:
        """The request in a body that is parsed already.

        Raises:
            ApiError: 400 naming the field and what is wrong with it.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise _explain(error) from None

    @property
    def answer_schema(self) -> dict[str, Any] | None:
        """The JSON Schema that the response's text has to match."""
        wanted = (self.output_config or {}).get("format")
        if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
            return None
        schema = wanted.get("schema")
        return schema if isinstance(schema, dict) else None

    @property
    def image_count(self) -> int:
        """Image blocks in the messages, those within tool results included."""
        return sum(_images(block) for message in self.messages for block in message.blocks())

    @model_validator(mode="after")
    def _offers_the_chosen_tool(self) -> Self:
        chosen = self.tool_choice
        if chosen.type == "tool" and chosen.name not in {tool.name for tool in self.tools}:
            raise ValueError(f"tool_choice.name: no tool {chosen.name!r} is offered")
        return self


class MessagesRequest(CountTokensRequest):
    # 0 fills the cache and generates nothing.
    max_tokens: int = Field(ge=0)
    stream: bool = False
    stop_sequences: list[str] = Field(default_factory=list)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    metadata: dict[str, Any] | None = None


def parse_messages_request(body: bytes) -> MessagesRequest:
    """Parses the body of `POST /v1/messages`.

    Raises:
        ApiError: 400 naming the field and what is wrong with it.
    """
    return MessagesRequest.of(read_json(body))


def parse_count_tokens_request(body: bytes) -> CountTokensRequest:
    """Parses the body of `POST /v1/messages/count_tokens`; errors as above."""
    return CountTokensRequest.of(read_json(body))


def read_json(body: bytes) -> Any:
    """The JSON document in a body, of any shape; errors as above."""
    try:
        return from_json(body)
    except ValueError as error:
        raise invalid_request(f"The request body is not valid JSON: {error}.") from None


def _explain(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = _IN_JSON.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    return invalid_request(f"{where}: {message}" if where else message)
