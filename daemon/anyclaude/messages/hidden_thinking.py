"""Thinking that the client does not want to see, carried in the signature of its block.

With `thinking.display` = "omitted" the API sends thinking blocks without text, whose signature
holds the thinking for later turns (Anthropic's documentation, "Extended thinking", "Controlling
thinking display"). The next prompt extends this one only if the thinking comes back, so
signatures of ours hold it too, and nothing has to be remembered here.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

_PREFIX: Final = "anyclaude-hidden-"
# A block of thinking is at most as long as a context window; this is the bound for what expands.
_MAX_BYTES: Final = 16 * 1024 * 1024


def is_omitted(thinking: Mapping[str, Any] | None) -> bool:
    """Whether a request's `thinking` asks for blocks without text."""
    return (thinking or {}).get("display") == "omitted"


def packed(prefix: str, value: Any) -> str:
    """A JSON value as a signature, which its client sends back unread."""
    written = json.dumps(value, separators=(",", ":")).encode()
    return prefix + base64.urlsafe_b64encode(zlib.compress(written)).decode()


def unpacked(prefix: str, signature: Any) -> Any:
    """The value in a signature; None in one of another prefix, or that the client changed."""
    if not isinstance(signature, str) or not signature.startswith(prefix):
        return None
    unpacker = zlib.decompressobj()
    try:
        content = base64.urlsafe_b64decode(signature.removeprefix(prefix))
        written = unpacker.decompress(content, _MAX_BYTES)
        return json.loads(written) if unpacker.eof else None
    except (ValueError, zlib.error):
        return None


def hidden(thinking: str, signature: str) -> str:
    """The signature that carries a block's thinking and its own signature."""
    return packed(_PREFIX, [thinking, signature])


def revealed(block: dict[str, Any]) -> dict[str, Any]:
    """The block with the thinking that its signature carries; any other block as it is."""
    if block.get("type") != "thinking":
        return block
    match unpacked(_PREFIX, block.get("signature")):
        case [str(thinking), str(own)]:
            return {**block, "thinking": thinking, "signature": own}
    return block
