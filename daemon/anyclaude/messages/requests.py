"""A Messages request as clients send it.

The types are open: unknown fields, block types and betas are kept and never refused, since Claude
Code adds some with every release. Only fields that a response needs are checked.
"""

import math
import re
import unicodedata
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import from_json

from anyclaude.messages.errors import ApiError, invalid_request, thread_unsupported
from anyclaude.messages.hidden_thinking import revealed
from anyclaude.messages.published_tools import is_published, with_schema
from anyclaude.messages.schemas import MalformedError, check_schema

# They replace pydantic's messages, which name Python types.
_IN_JSON: Final = {
    "model_type": "Input should be an object",
    "dict_type": "Input should be an object",
    "list_type": "Input should be an array",
}
# The API allows 128 letters of ASCII, digits, "_" and "-". These other names are not changed by any
# notation in which models write calls.
_TOOL_NAME: Final = re.compile(r"[\w-](?:[\w ./:@+-]{0,254}[\w./:@+-])?")
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
# Escapes in a JSON text; a half of a surrogate pair without its other half is one by itself.
_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)


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

    @field_validator("content")
    @classmethod
    def _reveal_thinking(cls, content: str | list[Block]) -> str | list[Block]:
        return content if isinstance(content, str) else [revealed(block) for block in content]

    def blocks(self) -> list[dict[str, Any]]:
        """The content as blocks, whichever form it came in."""
        if isinstance(self.content, str):
            return [{"type": "text", "text": self.content}]
        return self.content

    @property
    def is_empty(self) -> bool:
        """Whether it has no blocks but texts without a character."""
        return all(block["type"] == "text" and not block.get("text") for block in self.blocks())


class Tool(_Open):
    """A client tool, or a server tool, which Anthropic's service runs.

    A client tool's `type` is absent, "custom", or one that Anthropic publishes, which then gets its
    published schema. Toolsets have no name in a request, and get one here.
    """

    name: str
    type: str | None = None
    description: str = ""
    input_schema: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, tool: Any) -> Any:
        if not isinstance(tool, dict):
            return tool
        if tool.get("description", "") is None:
            tool = {**tool, "description": ""}
        kind = tool.get("type")
        if not isinstance(kind, str) or kind == "custom":
            return tool
        if is_published(kind):
            return with_schema(tool)
        name = tool.get("name") or tool.get("mcp_server_name") or kind
        return {**tool, "name": _NOT_IN_A_NAME.sub("_", name) if isinstance(name, str) else name}

    @field_validator("name")
    @classmethod
    def _can_be_called(cls, name: str) -> str:
        if not _TOOL_NAME.fullmatch(name) or not unicodedata.is_normalized("NFC", name):
            raise ValueError("String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
        return name

    @field_validator("input_schema")
    @classmethod
    def _has_a_sound_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        check_schema(schema or {})
        return schema

    @property
    def is_client_tool(self) -> bool:
        return self.type in (None, "custom") or is_published(self.type or "")


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

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, document: Any) -> Any:
        """`output_format`, the beta's name of `output_config.format`, which the API still reads."""
        if not isinstance(document, dict) or document.get("output_format") is None:
            return document
        config = document.get("output_config") or {}
        if not isinstance(config, dict) or config.get("format") is not None:
            return document
        return {**document, "output_config": {**config, "format": document["output_format"]}}

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
        if chosen.type not in ("any", "tool"):
            return self
        names = {tool.name for tool in self.tools} | set(self._defined_names())
        if not names:
            raise ValueError("tool_choice: it may only be specified while providing `tools`")
        if chosen.type == "tool" and chosen.name not in names:
            raise ValueError(f"tool_choice.name: no tool {chosen.name!r} is offered")
        return self

    @model_validator(mode="after")
    def _names_each_tool_once(self) -> Self:
        twice = [name for name, times in Counter(t.name for t in self.tools).items() if times > 1]
        if twice:
            raise ValueError(f"tools: Tool names must be unique, and {twice[0]!r} is not")
        return self

    @model_validator(mode="after")
    def _ends_with_content(self) -> Self:
        # An empty turn in the history is read as one: refusing it would refuse every later turn.
        last = self.messages[-1]
        if last.role == "user" and last.is_empty:
            place = len(self.messages) - 1
            raise ValueError(f"messages.{place}: user messages must have non-empty content")
        return self

    @model_validator(mode="after")
    def _has_a_sound_format(self) -> Self:
        wanted = (self.output_config or {}).get("format")
        if wanted is None:
            return self
        where = "output_config.format"
        if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
            raise ValueError(f"{where}: Input should be an object whose type is 'json_schema'")
        if not isinstance(wanted.get("schema"), dict):
            raise ValueError(f"{where}.schema: Input should be an object")
        check_schema(wanted["schema"], f"{where}.schema")
        return self

    @model_validator(mode="after")
    def _has_the_whole_conversation(self) -> Self:
        if (self.model_extra or {}).get("thread") is not None:
            raise thread_unsupported()
        return self

    def _defined_names(self) -> Iterator[str]:
        """The names of tools that system messages define."""
        for message in self.messages:
            for block in message.content if message.role == "system" else ():
                change = block.get("tool") if isinstance(block, dict) else None
                definition = change.get("definition") if isinstance(change, dict) else None
                if isinstance(definition, dict) and isinstance(definition.get("name"), str):
                    yield definition["name"]


class MessagesRequest(CountTokensRequest):
    # 0 fills the cache and generates nothing.
    max_tokens: int = Field(ge=0)
    stream: bool = False
    stop_sequences: list[str] = Field(default_factory=list)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0)
    metadata: dict[str, Any] | None = None

    @field_validator("stop_sequences")
    @classmethod
    def _stops_at_something(cls, sequences: list[str]) -> list[str]:
        for index, sequence in enumerate(sequences):
            if not sequence.strip():
                raise MalformedError(str(index), "each stop sequence must contain non-whitespace")
        return sequences


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
    """The JSON document in a body, of any shape; errors as above.

    Half of a character, which JavaScript writes where a text was cut, becomes U+FFFD: it stays in
    the history, so refusing it would refuse every later turn.
    """
    try:
        try:
            document = from_json(body, allow_inf_nan=False)
        except ValueError:
            mended = _ESCAPE.sub(_whole, body.removeprefix(BOM_UTF8))
            document = from_json(mended, allow_inf_nan=False)
    except ValueError as error:
        raise invalid_request(f"The request body is not valid JSON: {error}.") from None
    _check_finite(document)
    return document


def _whole(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape["half"] else escape[0]


def _check_finite(value: Any) -> None:
    """Refuses numbers that became infinite: no other server would read them from us."""
    if isinstance(value, float) and not math.isfinite(value):
        raise invalid_request("The request body holds a number that is too large.")
    if isinstance(value, dict):
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        _check_finite(part)


def _explain(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False)[0]
    places = [str(part) for part in first["loc"]]
    message = _IN_JSON.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, MalformedError) and cause.path:
        places, message = [*places, cause.path], cause.expected
    where = ".".join(places)
    return invalid_request(f"{where}: {message}" if where else message)
