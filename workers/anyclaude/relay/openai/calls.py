"""Tool calls out of streamed pieces, mended where servers get them wrong.

What is mended: a missing or repeated index, a missing or reused id, a name in pieces or repeated,
arguments as an object, calls told again whole after they were streamed, pieces of several calls
mixed. What cannot be mended is arguments that are no JSON object: the answer fails, since a tool
would run on half its input.

Invariant: calls leave in the order in which they began, each whole before the next begins.
"""

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from anyclaude.messages.blocks import BlockWriter

# What the Messages API takes, so that a conversation can go on in any mode.
_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class BrokenCallError(Exception):
    """A call that cannot be made whole; the message says why."""


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
    # How many characters of the arguments are out; None while the call is not announced.
    sent: int | None = None
    _brackets: _Brackets = field(default_factory=_Brackets)

    def extend(self, piece: str) -> None:
        self.arguments += piece
        # Asking the parser at every piece would be quadratic.
        if self._brackets.feed(piece):
            self.is_complete = isinstance(_parsed(self.arguments), dict)


@dataclass
class CallAssembler:
    """Pieces in, worker events out by the writer."""

    writer: BlockWriter
    # Ids of the conversation so far: a server that counts from 0 in every answer would reuse them.
    taken: Collection[str]
    _calls: list[_Call] = field(default_factory=list)
    # The calls before this one are out.
    _current: int = 0
    _used: set[str] = field(default_factory=set)

    @property
    def is_open(self) -> bool:
        """The last call is not yet complete: words must wait for it."""
        return self._current < len(self._calls) and not self._calls[-1].is_complete

    def feed(self, pieces: Sequence[Any], *, is_last: bool) -> None:
        """Takes `tool_calls` of one chunk.

        Args:
            pieces: as the server sent them.
            is_last: the chunk also ends the answer.
        """
        whole = [piece for piece in pieces if isinstance(piece, dict)]
        if is_last and self._is_repetition(whole):
            return
        for piece in whole:
            self._take(piece)
        self._release(at_end=False)

    def settle(self) -> None:
        """Sends what is held back: words follow, or the end.

        Raises:
            BrokenCallError
        """
        self._release(at_end=True)

    def _is_repetition(self, pieces: Sequence[Mapping[str, Any]]) -> bool:
        """Whether `pieces` tell whole calls that were all streamed before."""
        known = [(call.name, _parsed(call.arguments)) for call in self._calls if call.is_complete]
        told = [(_name(piece), _parsed(_arguments(piece))) for piece in pieces]
        return bool(told) and all(call in known for call in told)

    def _take(self, piece: Mapping[str, Any]) -> None:
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
        """The call that a piece belongs to, a new one where it begins one."""
        index, server_id = _index(piece), piece.get("id") or ""
        candidates = [
            call
            for call in self._calls
            if (server_id and call.server_id == server_id)
            or (index is not None and call.index == index)
        ]
        if not candidates and index is None and not server_id and self._calls:
            # Nothing tells: it goes on with the last call, unless it plainly begins another.
            candidates = self._calls[-1:]
        if candidates and not self._begins_another(candidates[-1], piece, str(server_id)):
            return candidates[-1]
        call = _Call(index, str(server_id))
        self._calls.append(call)
        return call

    @staticmethod
    def _begins_another(call: _Call, piece: Mapping[str, Any], server_id: str) -> bool:
        """Servers that give every parallel call the same index tell them apart by id and name."""
        if not _name(piece):
            return False
        if server_id and call.server_id:
            return server_id != call.server_id
        told_again = _parsed(_arguments(piece)) == _parsed(call.arguments)
        return call.is_complete and not told_again

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
            # A name may come in pieces; the first argument shows that it is complete.
            if not call.arguments:
                return
            call.sent = 0
            self.writer.begin_tool_use(self._id(call), call.name)
        self.writer.input_json(call.arguments[call.sent :])
        call.sent = len(call.arguments)

    def _id(self, call: _Call) -> str:
        wanted = call.server_id
        if not _ID.fullmatch(wanted) or wanted in self._used or wanted in self.taken:
            wanted = f"toolu_{secrets.token_hex(12)}"
        self._used.add(wanted)
        return wanted


def _parsed(text: str) -> Any:
    """The JSON value of `text`; None when it is none."""
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
