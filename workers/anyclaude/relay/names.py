"""Names of tools and ids of calls, in the form that the other side takes, mapped both ways.

The Messages API takes ids of letters, digits, `_` and `-` that are new in the conversation. A
server's id with other characters (`functions.Read:0`) is kept inside the id that the client gets,
and the server gets it back. Chat completions take names of at most 64 such characters; a longer or
odd name becomes a short one that depends on nothing but the name, so that prompts stay the same.
"""

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Collection, Iterable
from typing import Final

from anyclaude.messages.requests import CountTokensRequest
from anyclaude.messages.tool_names import known_name

_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# An id that holds the server's own one.
_HOLDING: Final = re.compile(r"toolu_ac[0-9a-f]{8}_([a-zA-Z0-9_-]+)")
_MAX_HELD_CHARACTERS: Final = 64
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]+")
_MAX_NAME_CHARACTERS: Final = 64
_ODD: Final = re.compile(r"[^a-zA-Z0-9_-]")
_KEPT_CHARACTERS: Final = 50


class CallIds:
    """Gives each call of an answer an id that is valid and new in the conversation."""

    def __init__(self, used: Collection[str] = ()) -> None:
        self._used = set(used)

    def client_id(self, server_id: str) -> str:
        """The id that the client gets for a call; a valid and new one is kept."""
        wanted = server_id
        if not _ID.fullmatch(wanted) or wanted in self._used:
            wanted = _holding(server_id) if not _ID.fullmatch(server_id) else _new()
        self._used.add(wanted)
        return wanted


def _new() -> str:
    return f"toolu_{secrets.token_hex(12)}"


def _holding(server_id: str) -> str:
    if not 0 < len(server_id) <= _MAX_HELD_CHARACTERS:
        return _new()
    held = base64.urlsafe_b64encode(server_id.encode(errors="replace")).decode().rstrip("=")
    return f"toolu_ac{secrets.token_hex(4)}_{held}"


def server_id(client_id: str) -> str:
    """The id that the server knows a call by."""
    found = _HOLDING.fullmatch(client_id)
    if not found:
        return client_id
    try:
        return base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return client_id


def used_ids(request: CountTokensRequest) -> set[str]:
    """The ids of all calls in a conversation: a server that counts from 0 reuses them."""
    return {
        str(block.get("id"))
        for message in request.messages
        for block in message.blocks()
        if block["type"] == "tool_use"
    }


class ToolNames:
    """The names of a request's tools, as the server gets them."""

    def __init__(self, names: Iterable[str], longest: int = _MAX_NAME_CHARACTERS) -> None:
        self._originals = {short_name(name, longest): name for name in names}

    @property
    def sent(self) -> Collection[str]:
        return self._originals.keys()

    def sent_name(self, name: str) -> str:
        """The name of a tool that a model wrote in another way; others as they are."""
        return known_name(name, self._originals)

    def original(self, name: str) -> str:
        """The client's name for one that the server sent."""
        return self._originals.get(self.sent_name(name), name)


def short_name(name: str, longest: int = _MAX_NAME_CHARACTERS) -> str:
    """A name of a tool as every server takes it."""
    if _NAME.fullmatch(name) and len(name) <= longest:
        return name
    digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:12]
    return f"{_ODD.sub('_', name)[:_KEPT_CHARACTERS]}_{digest}"
