"""Assembles tool calls from streamed pieces, and corrects the errors of servers.

It corrects a missing or repeated index, a missing or reused id, a name in pieces or repeated, whole
calls that are repeated after they were streamed, and pieces of several calls in turn. What is wrong
with the arguments themselves, `anyclaude.relay.arguments` corrects. Arguments that are not a JSON
object fail the response, since a tool would run on half of its input.

Invariant: calls are emitted in the order in which they began, each complete before the next one.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anyclaude.messages.blocks import BlockWriter
from anyclaude.relay.arguments import Arguments, text_of, whole_value
from anyclaude.relay.halves import without_halves
from anyclaude.relay.names import CallIds, ToolNames


class BrokenCallError(Exception):
    """A call that cannot be completed; the message says why."""


@dataclass
class _Call:
    index: int | None
    server_id: str
    name: str = ""
    arguments: Arguments = field(default_factory=Arguments)
    # The call's start was emitted.
    is_begun: bool = False


@dataclass
class CallAssembler:
    """Emits worker events for the pieces of tool calls, by the writer."""

    writer: BlockWriter
    ids: CallIds
    # The names that the server knows tell a name in pieces from the name of another call.
    names: ToolNames
    # Called with each piece of a call, whatever fields it has, and the id that the client gets.
    on_piece: Callable[[str, Mapping[str, Any]], None] = lambda _id, _piece: None
    # Called before a call is emitted.
    on_begin: Callable[[], None] = lambda: None
    _calls: list[_Call] = field(default_factory=list)
    # The index of the first call that was not emitted completely.
    _current: int = 0
    _client_ids: dict[int, str] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether more of the last call may come: text must wait for it."""
        return self._current < len(self._calls) and not self._is_over(self._calls[-1])

    def feed(self, pieces: Sequence[Any], *, is_last: bool) -> None:
        """Adds the `tool_calls` of one chunk; `is_last` if the chunk also ends the response."""
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

    @property
    def is_cut(self) -> bool:
        """Whether the input of the last call is not whole, if the answer was cut here."""
        return self._current < len(self._calls) and not self._calls[-1].arguments.is_complete

    def cut(self) -> None:
        """Emits the last call as far as it came, and leaves it open.

        Raises:
            BrokenCallError: a call before it is incomplete.
        """
        for call in self._calls[self._current : -1]:
            self._advance(call, at_end=True)
        self._current = len(self._calls)
        last = self._calls[-1]
        if not last.is_begun and last.name:
            self._begin(last)
        if last.is_begun:
            self.writer.input_json(last.arguments.take())
            self.writer.abandon()
        else:
            self.writer.close()

    def _is_repetition(self, pieces: Sequence[Mapping[str, Any]]) -> bool:
        """Whether `pieces` are the whole calls that were streamed before."""
        known = [(call.name, call.arguments.value) for call in self._calls]
        repeated = [(self._name(piece), whole_value(_arguments(piece))) for piece in pieces]
        if not repeated or repeated != known or any(value is None for _, value in known):
            return False
        if len(pieces) > 1:
            return True
        # The same call twice may be meant if the second one has an id or an index of its own.
        (first,), (piece,) = self._calls, pieces
        again = str(piece.get("id") or "")
        is_new_id = bool(again and first.server_id and again != first.server_id)
        return not is_new_id and _index(piece) in (None, first.index)

    def _add(self, piece: Mapping[str, Any]) -> None:
        name, arguments = self._name(piece), _arguments(piece)
        if not (name or arguments or piece.get("id") or self._calls):
            # A piece that says nothing begins no call.
            return
        call = self._find(piece, name, arguments)
        self.on_piece(self._id(call), piece)
        if name and not call.is_begun and (call.arguments.is_empty or not call.name):
            call.name = _joined(call.name, name, self.names.sent)
        if call.arguments.extends(arguments):
            call.arguments.feed(arguments)
        elif not call.arguments.repeats(arguments):
            raise BrokenCallError(f"arguments of {call.name} go on after their end")

    def _find(self, piece: Mapping[str, Any], name: str, arguments: str) -> _Call:
        """The call that a piece belongs to; a new one if the piece begins one."""
        index, server_id = _index(piece), str(piece.get("id") or "")
        call = self._candidate(index, server_id, name, arguments)
        if call is None or (name and self._is_another(call, server_id, name, arguments)):
            call = _Call(index, server_id)
            self._calls.append(call)
        return call

    def _candidate(
        self, index: int | None, server_id: str, name: str, arguments: str
    ) -> _Call | None:
        """The call that a piece may belong to, by its index, else by its id, else the last one."""
        same_index = [call for call in self._calls if index is not None and call.index == index]
        if same_index:
            # One index for all calls: then ids tell the calls apart.
            same_id = [call for call in same_index if server_id and call.server_id == server_id]
            return (same_id or same_index)[-1]
        if index is not None and name:
            return None
        same_id = [call for call in self._calls if server_id and call.server_id == server_id]
        if same_id:
            return same_id[-1]
        last = self._calls[-1] if self._calls else None
        # A name with a new id begins a call, unless the id changes with each piece of one.
        if last and name and server_id and last.server_id:
            is_piece = not last.arguments.is_complete and last.name == name
            return last if is_piece and whole_value(arguments) is None else None
        return last

    def _is_another(self, call: _Call, server_id: str, name: str, arguments: str) -> bool:
        """Whether a piece with a name begins another call than the one that it seems to continue.

        Some servers give all parallel calls one index, or no index and no id.
        """
        is_new_id = bool(server_id and call.server_id and server_id != call.server_id)
        begun = call.arguments
        if not call.name:
            # The name may come behind the arguments.
            return is_new_id
        if name != call.name and name in self.names.sent:
            # While the name is still in pieces, it is not the name of a tool.
            return call.name in self.names.sent or not begun.is_empty
        if not begun.is_complete:
            # An id that changes with each piece says nothing, unless the piece adds nothing else.
            return is_new_id and begun.is_empty and not arguments and name == call.name
        if begun.is_empty and not is_new_id:
            return name != call.name
        is_repeated = begun.repeats(arguments) or not arguments.strip()
        return is_new_id or name != call.name or not is_repeated

    def _release(self, *, at_end: bool) -> None:
        while self._current < len(self._calls):
            call = self._calls[self._current]
            is_last = self._current == len(self._calls) - 1
            is_over = at_end or (not is_last and self._is_over(call))
            self._advance(call, at_end=is_over)
            if not is_over:
                return
            self._current += 1

    @staticmethod
    def _is_over(call: _Call) -> bool:
        """Whether a call is whole; an empty input may be followed by the real one."""
        return call.arguments.is_complete and not call.arguments.is_empty

    def _advance(self, call: _Call, *, at_end: bool) -> None:
        if at_end:
            try:
                piece = call.arguments.settle()
            except ValueError:
                name = call.name or "a call"
                raise BrokenCallError(f"the arguments of {name} are not whole") from None
            if not call.name:
                raise BrokenCallError("a call has no name")
        else:
            # A name may come in pieces; it is complete when the arguments begin, or follows them.
            piece = call.arguments.take() if call.name else ""
        if not piece:
            return
        if not call.is_begun:
            self._begin(call)
        self.writer.input_json(piece)

    def _begin(self, call: _Call) -> None:
        call.is_begun = True
        self.on_begin()
        name = without_halves(self.names.original(call.name))
        self.writer.begin_tool_use(self._id(call), name)

    def _name(self, piece: Mapping[str, Any]) -> str:
        name = _function(piece).get("name")
        return self.names.sent_name(name) if isinstance(name, str) else ""

    def _id(self, call: _Call) -> str:
        place = next(place for place, known in enumerate(self._calls) if known is call)
        if place not in self._client_ids:
            self._client_ids[place] = self.ids.client_id(call.server_id)
        return self._client_ids[place]


def _joined(known: str, piece: str, tools: Collection[str]) -> str:
    """A name with its next piece, which may also repeat it, or be the whole name so far."""
    if piece == known or (piece.startswith(known) and (piece in tools or not tools)):
        return piece
    return known + piece


def _function(piece: Mapping[str, Any]) -> Mapping[str, Any]:
    function = piece.get("function")
    # Some servers leave out the object around name and arguments.
    return function if isinstance(function, dict) else piece


def _arguments(piece: Mapping[str, Any]) -> str:
    function = _function(piece)
    # Some servers use the names of other APIs.
    named = (function.get(name) for name in ("arguments", "parameters", "input"))
    return text_of(next((value for value in named if value is not None), None))


def _index(piece: Mapping[str, Any]) -> int | None:
    index = piece.get("index")
    return index if isinstance(index, int) else None
