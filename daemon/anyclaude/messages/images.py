"""The images of a request, and the request with texts in their place.

Only images whose data is in the request count: an image at an address is never fetched.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Image:
    """One image block; `digest` is the same for the same picture."""

    block: dict[str, Any]
    digest: str


def images_in(document: Mapping[str, Any]) -> Iterator[Image]:
    """The images in the messages of a Messages request, tool results included."""
    for content in _contents(document):
        for block in content:
            if image := _image(block):
                yield image


def with_texts(document: dict[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Puts the text of each digest in the place of its image; changes the document."""
    for content in _contents(document):
        for index, block in enumerate(content):
            image = _image(block)
            if image is not None and image.digest in texts:
                kept = {key: block[key] for key in ("cache_control",) if key in block}
                content[index] = {"type": "text", "text": texts[image.digest], **kept}
    return document


def _contents(document: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The lists of blocks in which images may be."""
    for message in document["messages"]:
        content = message.get("content")
        if not isinstance(content, list):
            continue
        yield content
        for block in content:
            if isinstance(block, dict) and isinstance(inner := block.get("content"), list):
                yield inner


def _image(block: Any) -> Image | None:
    if not isinstance(block, dict) or block.get("type") != "image":
        return None
    source = block.get("source")
    data = source.get("data") if isinstance(source, dict) else None
    if not isinstance(data, str):
        return None
    return Image(block, hashlib.sha256(data.encode()).hexdigest())
