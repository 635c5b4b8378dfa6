"""The requests that the sections send. They are fixed texts, so a report shows nobody's prompts."""

from typing import Any, Final

LONG_ANSWER_TOKENS: Final = 256
STORY: Final = "Write a long story about a lighthouse keeper. Do not stop before a thousand words."
_WORDS: Final = "The keeper climbed the stairs, lit the lamp and wrote the weather into the book. "


def free_answer(max_tokens: int = LONG_ANSWER_TOKENS) -> dict[str, Any]:
    """A request for text."""
    return _request(STORY, max_tokens)


def tool_call(max_tokens: int = LONG_ANSWER_TOKENS) -> dict[str, Any]:
    """A request that must call a tool: a grammar constrains every token of the answer."""
    content = {"type": "string", "minLength": 20_000}
    schema = {"type": "object", "properties": {"content": content}, "required": ["content"]}
    tool = {"name": "write_story", "description": "Saves a story.", "input_schema": schema}
    choice = {"type": "tool", "name": "write_story"}
    return _request(STORY, max_tokens) | {"tools": [tool], "tool_choice": choice}


def long_prompt(repeats: int = 200) -> dict[str, Any]:
    """A request whose prompt takes a few thousand tokens, for the time until the first token."""
    return _request(_WORDS * repeats + "Continue.", 16)


def _request(text: str, max_tokens: int) -> dict[str, Any]:
    return {"max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]}
