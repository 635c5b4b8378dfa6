"""Assembles tool calls from streamed pieces, and corrects the errors of servers.

It corrects a missing or repeated index, a missing or reused id, a name in pieces or repeated,
arguments as an object, whole calls that are repeated after they were streamed, and pieces of
several calls in turn. It cannot correct arguments that are not a JSON object: the response fails,
since a tool would run on half of its input.

Invariant: calls are emitted in the order in which they began, each complete before the next one.
"""

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from anyclaude.messages.blocks import BlockWriter

# The form that the Messages API accepts, so that a conversation can continue in any mode.
_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class BrokenCallError(Exception):
    """A call that cannot be completed; the message says why."""


class _Brackets:
    """Whether all brackets of a JSON text are closed."""

    _TELLING: Final = re.compile(r'[\[\]{}"\\]')

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped_at = -1
        self._length = 0

    def feed(self, piece: str) -> bool:
        for found in self._TELLING.finditer(piece):
            self._see(found[0], self._length + found.start())
        self._length += len(piece)
        return self._depth <= 0 and not self._in_string

    def _see(self, character: str, position: int) -> None:
        if self._escaped_at == position:
            return
        if character == "\\":
            self._escaped_at = position + 1
        elif character == '"':
            self._in_string = not self._in_string
        elif not self._in_string:
            self._depth += 1 if character in "[{" else -1


@dataclass
class _Call:
    index: int | None
    server_id: str
    name: str = ""
    arguments: str = ""
    # The arguments are one whole JSON object.
    is_complete: bool = False
    # How many characters of the arguments were emitted; None before the call's start was.
    sent: int | None = None
    _brackets: _Brackets = field(default_factory=_Brackets)

    def extend(self, piece: str) -> None:
        self.arguments += piece
        # Parsing after every piece would be quadratic.
        if self._brackets.feed(piece):
            self.is_complete = isinstance(_parsed(self.arguments), dict)


@dataclass
class CallAssembler:
    """Emits worker events for the pieces of tool calls, by the writer."""

    writer: BlockWriter
    # Ids in the conversation so far: a server that counts from 0 in every response reuses them.
    used_ids: Collection[str]
    _calls: list[_Call] = field(default_factory=list)
    # The index of the first call that was not emitted completely.
    _current: int = 0
    _used: set[str] = field(default_factory=set)

    @property
    def is_open(self) -> bool:
        """Whether the last call is incomplete: text must wait for it."""
        return self._current < len(self._calls) and not self._calls[-1].is_complete

    def feed(self, pieces: Sequence[Any], *, is_last: bool) -> None:
        """Adds the `tool_calls` of one chunk.

        Args:
            pieces: as the server sent them.
            is_last: whether the chunk also ends the response.
        """
        whole = [piece for piece in pieces if isinstance(piece, dict)]
        if is_last and self._is_repetition(whole):
            return
        for piece in whole:
            self._add(piece)
        self._release(at_end=False)

    def settle(self) -> None:
        """Emits the delayed pieces, since text or the end follows.

        Raises:
            BrokenCallError: a call is incomplete.
        """
        self._release(at_end=True)

    def _is_repetition(self, pieces: Sequence[Mapping[str, Any]]) -> bool:
        """Whether `pieces` are whole calls that were all streamed before."""
        known = [(call.name, _parsed(call.arguments)) for call in self._calls if call.is_complete]
        repeated = [(_name(piece), _parsed(_arguments(piece))) for piece in pieces]
        return bool(repeated) and all(call in known for call in repeated)

    def _add(self, piece: Mapping[str, Any]) -> None:
        call = self._find(piece)
        name, arguments = _name(piece), _arguments(piece)
        if not call.arguments and name != call.name:
            call.name += name
        if call.is_complete:
            if arguments.strip() and _parsed(arguments) != _parsed(call.arguments):
                raise BrokenCallError(f"arguments of {call.name} go on after their end")
            return
        call.extend(arguments)

    def _find(self, piece: Mapping[str, Any]) -> _Call:
        """The call that a piece belongs to; a new one if the piece begins one."""
        index, server_id = _index(piece), piece.get("id") or ""
        candidates = [
            call
            for call in self._calls
            if (server_id and call.server_id == server_id)
            or (index is not None and call.index == index)
        ]
        if not candidates and index is None and not server_id and self._calls:
            # Neither index nor id: it continues the last call, unless it clearly begins another.
            candidates = self._calls[-1:]
        if candidates and not self._begins_another(candidates[-1], piece, str(server_id)):
            return candidates[-1]
        call = _Call(index, str(server_id))
        self._calls.append(call)
        return call

    @staticmethod
    def _begins_another(call: _Call, piece: Mapping[str, Any], server_id: str) -> bool:
        """Some servers give all parallel calls one index; their ids and names differ."""
        if not _name(piece):
            return False
        if server_id and call.server_id:
            return server_id != call.server_id
        is_repeated = _parsed(_arguments(piece)) == _parsed(call.arguments)
        return call.is_complete and not is_repeated

    def _release(self, *, at_end: bool) -> None:
        while self._current < len(self._calls):
            call = self._calls[self._current]
            self._advance(call, at_end=at_end)
            is_last = self._current == len(self._calls) - 1
            if not call.is_complete or (is_last and not at_end):
                return
            self._current += 1

    def _advance(self, call: _Call, *, at_end: bool) -> None:
        if at_end and not call.arguments.strip():
            call.extend("{}")
        if at_end and not (call.name and call.is_complete):
            raise BrokenCallError(f"the arguments of {call.name or 'a call'} are not whole")
        if call.sent is None:
            # A name may come in pieces; it is complete when the arguments begin.
            if not call.arguments:
                return
            call.sent = 0
            self.writer.begin_tool_use(self._id(call), call.name)
        self.writer.input_json(call.arguments[call.sent :])
        call.sent = len(call.arguments)

    def _id(self, call: _Call) -> str:
        wanted = call.server_id
        if not _ID.fullmatch(wanted) or wanted in self._used or wanted in self.used_ids:
            wanted = f"toolu_{secrets.token_hex(12)}"
        self._used.add(wanted)
        return wanted


def _parsed(text: str) -> Any:
    """The JSON value of `text`; None if it is not JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _function(piece: Mapping[str, Any]) -> Mapping[str, Any]:
    function = piece.get("function")
    return function if isinstance(function, dict) else {}


def _name(piece: Mapping[str, Any]) -> str:
    name = _function(piece).get("name")
    return name if isinstance(name, str) else ""


def _arguments(piece: Mapping[str, Any]) -> str:
    arguments = _function(piece).get("arguments")
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else ""


def _index(piece: Mapping[str, Any]) -> int | None:
    index = piece.get("index")
    return index if isinstance(index, int) else None
