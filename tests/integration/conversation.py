"""A client of the service under test: sessions of the official client, and their token counts."""

import re
from collections.abc import Mapping
from typing import Any

import anthropic

from tests.integration import prompts
from tests.integration.prompts import LESSON
from tests.integration.service import WAIT_SECONDS, Service


def instructions(purpose: str, sentences: int = 40) -> str:
    """A long system prompt that starts like no other."""
    return f"{purpose}: " + LESSON * sentences


class Talker:
    """One conversation; closes with its client."""

    def __init__(self, service: Service, session: str) -> None:
        self._client = anthropic.Anthropic(
            base_url=service.base_url,
            api_key="x",
            max_retries=0,
            timeout=WAIT_SECONDS,
            default_headers=prompts.session(session),
            http_client=anthropic.DefaultHttpxClient(trust_env=False),
        )

    def __enter__(self) -> "Talker":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def messages(self) -> Any:
        """The client's messages API; untyped, since tests send fields that its types lack."""
        return self._client.messages

    def ask(self, *messages: Mapping[str, Any], **fields: Any) -> anthropic.types.Message:
        """Returns one answer, sampled greedily unless the test changes that."""
        answer: anthropic.types.Message = self.messages.create(**arguments(*messages, **fields))
        return answer

    def count(self, *messages: Mapping[str, Any], **fields: Any) -> int:
        counted = self.messages.count_tokens(model="any", messages=list(messages), **fields)
        return int(counted.input_tokens)


def body(*messages: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A Messages request that samples greedily, as sent without a client library."""
    own = {"model": "any", "max_tokens": 24, "temperature": 0.0, "messages": list(messages)}
    return own | fields


def arguments(*messages: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """The same for the official client, which has no temperature any more."""
    whole = body(*messages, **fields)
    return whole | {"extra_body": {"temperature": whole.pop("temperature")}}


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def prompt_tokens(message: anthropic.types.Message) -> int:
    """The tokens of the whole prompt, from the usage."""
    usage = message.usage
    return usage.input_tokens + (usage.cache_creation_input_tokens or 0) + read_tokens(message)


def read_tokens(message: anthropic.types.Message) -> int:
    """The tokens of the prompt that were not computed."""
    return message.usage.cache_read_input_tokens or 0


def reused(message: anthropic.types.Message) -> float:
    """The reused part of the prompt, 0 to 1."""
    return read_tokens(message) / prompt_tokens(message)


def a_word_in(text: str) -> str:
    """A run of letters inside `text` that occurs nowhere before."""
    return next(
        found[0]
        for found in re.finditer("[a-z]{4,}", text)
        if text.index(found[0]) == found.start() > 0
    )
