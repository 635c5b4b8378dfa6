"""Frames of server-sent events."""

from typing import Any

import pytest

from anyclaude.proxy.response import encode


@pytest.mark.parametrize("text", ["a\nb\r\nc", "\u2028\x85\x0b", "\U0001f600"])
def test_frames_survive_every_way_of_splitting_lines(text: str) -> None:
    """A frame is two lines and an empty one, whatever characters its text has."""
    event: dict[str, Any] = {"type": "content_block_delta", "delta": {"text": text}}
    assert len(encode(event).decode().splitlines()) == 3
