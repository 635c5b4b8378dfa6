"""The system prompt as plain text, without what differs between conversations."""

from typing import Any, Final

from anyclaude.messages.readable import block_text, join

_ATTRIBUTION: Final = "x-anthropic-billing-header:"


def system_text(system: str | list[dict[str, Any]]) -> str:
    """The system prompt without the attribution block, which differs between conversations."""
    if isinstance(system, str):
        return _without_attribution_line(system)
    return join(
        text
        for index, block in enumerate(system)
        if not (text := block_text(block, f"system.{index}")).startswith(_ATTRIBUTION)
    )


def _without_attribution_line(text: str) -> str:
    if not text.startswith(_ATTRIBUTION):
        return text
    return text.partition("\n")[2].lstrip("\n")
