"""Images in the two dialects: a block of the Messages API, and a part of a chat completion."""

import re
from collections.abc import Mapping
from typing import Any, Final

_DATA_URL: Final = re.compile(r"data:([\w.+/-]+)(?:;[\w=.-]+)*;base64,(.*)", re.DOTALL)


def image_part(block: Mapping[str, Any]) -> dict[str, Any] | None:
    """An image block as a part; None if the image is not in the request."""
    source = block.get("source")
    source = source if isinstance(source, Mapping) else {}
    data, url = source.get("data"), source.get("url")
    if source.get("type") == "base64" and isinstance(data, str):
        url = f"data:{source.get('media_type', 'image/png')};base64,{data}"
    elif source.get("type") != "url":
        return None
    return {"type": "image_url", "image_url": {"url": url}} if isinstance(url, str) else None


def image_block(url: str) -> dict[str, Any]:
    """The image at an address, or in a `data:` URL, as a block."""
    return {"type": "image", "source": data_source(url) or {"type": "url", "url": url}}


def data_source(url: str) -> dict[str, Any] | None:
    """The content of a `data:` URL as the source of a block; None for any other address."""
    found = _DATA_URL.fullmatch(url)
    if not found:
        return None
    return {"type": "base64", "media_type": found.group(1), "data": found.group(2)}
