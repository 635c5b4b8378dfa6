"""Thinking that the client does not want to see, carried in the signature of its block.

With `thinking.display` = "omitted" the API sends thinking blocks without text, whose signature
holds the thinking for later turns (Anthropic's documentation, "Extended thinking", "Controlling
thinking display"). The next prompt extends this one only if the thinking comes back, so
signatures of ours hold it too, and nothing has to be remembered here.
"""

import base64
import binascii
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


def hidden(thinking: str, signature: str) -> str:
    """The signature that carries a block's thinking and its own signature."""
    packed = zlib.compress(json.dumps([thinking, signature]).encode())
    return _PREFIX + base64.b64encode(packed).decode()


def revealed(block: dict[str, Any]) -> dict[str, Any]:
    """The block with the thinking that its signature carries; any other block as it is."""
    signature = block.get("signature")
    if block.get("type") != "thinking" or not isinstance(signature, str):
        return block
    if not signature.startswith(_PREFIX):
        return block
    try:
        packed = base64.b64decode(signature[len(_PREFIX) :], validate=True)
        unpacker = zlib.decompressobj()
        thinking, own = json.loads(unpacker.decompress(packed, _MAX_BYTES))
    except (binascii.Error, zlib.error, ValueError):
        # The client changed it: the block stays one without text.
        return block
    if not unpacker.eof or not isinstance(thinking, str) or not isinstance(own, str):
        return block
    return {**block, "thinking": thinking, "signature": own}
