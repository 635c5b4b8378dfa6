"""Generates upstream streams that mix everything servers do, with the message that each one means.

`python -m tests.unit.relay.generated_streams [--count N] [--seed N]` reads N streams whole, cut at
random bytes and broken off, and prints the figures.
"""

import argparse
import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from anyclaude.relay.dialect import BrokenAnswerError, Reader, RefusedInStreamError
from anyclaude.relay.names import short_name
from anyclaude.relay.sse import SseParser
from tests.integration.relay_process import fold
from tests.unit.relay.readers import chat_reader, message_reader

NAMES = ("Read", "Glob", "Bash", "mcp__" + "server_with_a_long_name_" * 3 + "read", "odd.name/x")
INPUTS: tuple[dict[str, Any], ...] = (
    {},
    {"path": "a"},
    {"path": 'b"}\\', "lines": [1, {"of": "]}"}]},
    {"text": "größe 🦊 \u2028 \n"},
    {"command": "x" * 300},
)
TEXTS = (
    "Hello there.",
    "größe 🦊 and 👍🏽!",
    "a\u2028b } ] {",
    "I read <b>two</b> files.\n\nThen…",
)
ORDINARY = ("stop", "eos", "tool_calls", "STOP", "end_turn", "function_call")
CUT = ("length", "MAX_TOKENS", "max_output_tokens")
REFUSED = ("content_filter", "SAFETY", "sensitive")
FAILED = (
    "network_error",
    "abort",
    "error",
    "MALFORMED_FUNCTION_CALL",
    "insufficient_system_resource",
)
BEATS = (
    b": comment",
    b"data:",
    b"event: ping\ndata: ping",
    b"data: null",
    b"data: {}",
    b"retry: 9",
    b'event: ping\ndata: {"type": "ping"}',
    b"id: 3",
    b"event: keepalive\ndata:",
)
ERRORS: tuple[dict[str, Any], ...] = (
    {"error": {"message": "out of memory", "code": 500}},
    {"error": "out of memory"},
    {"choices": [{"delta": {}, "error": {"message": "out of memory"}}]},
    {"choices": [{"delta": {}}], "x_groq": {"error": "out of memory"}},
    {"detail": "out of memory"},
)
# What models write around the name of a tool.
AROUND = ("functions.{}", " {}\n", "{}<|channel|>commentary", '"{}"', "functions.{}:0")
STYLES = ("standard", "one index", "no index", "bare", "one id", "an id each", "in turn")
REQUEST = {
    "model": "m",
    "max_tokens": 1000,
    "messages": [
        {"role": "user", "content": "q"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "call_0", "name": "Read", "input": {}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "call_0", "content": "x"}],
        },
    ],
    "tools": [{"name": name, "input_schema": {"type": "object"}} for name in NAMES],
}

Call = tuple[str, dict[str, Any]]


@dataclass
class Meaning:
    """What a stream says, however it says it."""

    thoughts: str = ""
    text: str = ""
    calls: list[Call] = field(default_factory=list)
    # The stop reason; empty if the answer must fail.
    stop: str = ""


@dataclass
class Stream:
    dialect: str
    kinds: set[str]
    meaning: Meaning
    pieces: list[bytes]
    # How many pieces must have come before the answer can count as whole; 0: that is not decidable.
    needed: int

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


class Generator:
    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def stream(self) -> Stream:
        """One stream, in either dialect."""
        return self._chat() if self._random.random() < 0.6 else self._messages()

    def _maybe(self, share: float = 0.5) -> bool:
        return self._random.random() < share

    def _pieces(self, text: str, most: int = 4) -> list[str]:
        """The text cut into pieces, some of them between the halves of one character."""
        halves = text.encode("utf-16-le", "surrogatepass")
        units = [
            halves[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(halves), 2)
        ]
        cuts = sorted(
            self._random.randrange(len(units) + 1) for _ in range(self._random.randrange(most))
        )
        edges = [0, *cuts, len(units)]
        pieces = ["".join(units[i:j]) for i, j in itertools.pairwise(edges)]
        return [
            piece.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
            for piece in pieces
            if piece
        ]

    def _meaning(self, *, most_calls: int) -> Meaning:
        pick = self._random
        meaning = Meaning()
        if self._maybe():
            meaning.thoughts = pick.choice(TEXTS)
        if self._maybe(0.7):
            meaning.text = pick.choice(TEXTS)
        for _ in range(pick.randrange(most_calls + 1)):
            meaning.calls.append((pick.choice(NAMES), pick.choice(INPUTS)))
        if not (meaning.text or meaning.calls):
            meaning.text = pick.choice(TEXTS)
        return meaning

    def _written(self, value: dict[str, Any]) -> str:
        return json.dumps(value, ensure_ascii=self._maybe())

    def _event(self, data: Any, name: str = "") -> bytes:
        text = data if isinstance(data, str) else json.dumps(data)
        head = f"event: {name}\n" if name else ""
        space = "" if self._maybe(0.2) else " "
        return (head + f"data:{space}{text}\n\n").encode()

    def _framed(self, events: list[bytes], needed: int) -> tuple[list[bytes], int]:
        """Adds heartbeats, and changes line ends."""
        end = self._random.choice([b"\n", b"\n", b"\r\n", b"\r"])
        framed: list[bytes] = [b"\xef\xbb\xbf"] if self._maybe(0.1) else []
        place = 0
        for number, event in enumerate(events, 1):
            if self._maybe(0.25):
                framed.append(self._random.choice(BEATS) + b"\n\n")
            framed.append(event)
            if number == needed:
                place = len(framed)
        if self._maybe(0.1):
            framed[-1] = framed[-1].rstrip(b"\n")
        return [piece.replace(b"\n", end) for piece in framed], place

    # Chat completions.

    def _chat(self) -> Stream:
        meaning = self._meaning(most_calls=4)
        ending, reasons = self._random.choices(
            [("", FAILED), ("max_tokens", CUT), ("refusal", REFUSED), ("end_turn", ORDINARY)],
            [1, 1, 1, 9],
        )[0]
        if ending == "max_tokens" and meaning.calls:
            # A call without input may have been cut before it.
            meaning.calls[-1] = ("Bash", INPUTS[1])
        kinds: set[str] = {"chat"}
        deltas: list[dict[str, Any]] = [{"role": "assistant"}] if self._maybe() else []
        if meaning.thoughts:
            name = self._random.choice(("reasoning_content", "reasoning", "thinking"))
            kinds.add(name)
            deltas += [{name: piece} for piece in self._pieces(meaning.thoughts)]
        shape = self._random.choice(("text", "text", "list", "object", "strings"))
        kinds.add(f"content as {shape}")
        before = deltas + [_content(piece, shape) for piece in self._pieces(meaning.text)]
        calls = self._chat_calls(meaning.calls, kinds)
        # Words before the calls, or behind them.
        words = [_content(piece, shape) for piece in self._pieces(meaning.text)]
        deltas = [*deltas, *calls, *words] if self._maybe(0.2) else [*before, *calls]
        meaning.stop = "tool_use" if ending == "end_turn" and meaning.calls else ending
        reason = self._random.choice(reasons)
        kinds.add(reason)
        return self._chat_stream(deltas, reason, meaning, kinds)

    def _chat_stream(
        self, deltas: list[dict[str, Any]], reason: str, meaning: Meaning, kinds: set[str]
    ) -> Stream:
        every = reason in ORDINARY and self._maybe(0.15)
        early = reason in ORDINARY and len(deltas) > 1 and self._maybe(0.15)
        events: list[bytes] = []
        for number, delta in enumerate(deltas, 1):
            is_early = every or (early and number == len(deltas) - 1)
            choice = {"index": 0, "delta": delta, "finish_reason": reason if is_early else None}
            events.append(self._event({"choices": [choice]}))
        if every or early:
            kinds.add("a reason with every chunk" if every else "words behind the first stop")
        if self._maybe(0.1):
            kinds.add("an empty choice")
            events.append(self._event({"choices": []}))
        last: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": reason}
        if reason in ORDINARY and not (every or early) and self._maybe(0.15):
            kinds.add("the whole message again at the end")
            last = {"finish_reason": reason, "message": _whole_message(meaning)}
        if reason in FAILED and self._maybe():
            kinds.add("an error in place of the end")
            events.append(self._event(self._random.choice(ERRORS)))
        else:
            choices = [{"index": 1, "delta": {"content": "no"}}, last]
            events.append(self._event({"choices": choices if self._maybe(0.1) else [last]}))
        needed = 0 if every or early else len(events)
        if self._maybe():
            usage = {"prompt_tokens": 100, "completion_tokens": 7}
            events.append(self._event({"choices": [], "usage": usage}))
        if self._maybe(0.7):
            events.append(self._event("[DONE]"))
        pieces, place = self._framed(events, needed)
        return Stream("chat", kinds, meaning, pieces, place)

    def _chat_calls(self, calls: list[Call], kinds: set[str]) -> list[dict[str, Any]]:
        if not calls:
            return []
        style = self._random.choice(STYLES)
        if style in ("one index", "bare") and any(
            one == other or (one[0] == other[0] and not (one[1] and other[1]))
            for one, other in itertools.pairwise(calls)
        ):
            # Nothing would tell two calls of one tool from one call that is told twice.
            style = "standard"
        kinds.add(style)
        told = [self._chat_call(number, call, style, kinds) for number, call in enumerate(calls)]
        if style == "in turn":
            order = [number for number, pieces in enumerate(told) for _ in pieces[1:]]
            self._random.shuffle(order)
            mixed = [pieces.pop(0) for pieces in told]
            mixed += [told[number].pop(0) for number in order]
        else:
            mixed = [piece for pieces in told for piece in pieces]
        if style != "in turn" and self._maybe(0.2):
            kinds.add("all calls in one chunk")
            return [{"tool_calls": mixed}]
        return [{"tool_calls": [piece]} for piece in mixed]

    def _chat_call(
        self, number: int, call: Call, style: str, kinds: set[str]
    ) -> list[dict[str, Any]]:
        name, value = call
        around = self._random.choice(AROUND) if self._maybe(0.15) else "{}"
        kinds.add(f"names as {around!r}")
        written = around.format(short_name(name))
        first: dict[str, Any] = {"type": "function", "function": {"name": written}}
        if style not in ("no index", "bare"):
            first["index"] = 0 if style == "one index" else number
        if style not in ("bare", "one id"):
            # Ids that were used before, odd ones, and good ones.
            first["id"] = self._random.choice(
                [f"call_{number}", f"functions.X:{number}", f"x{number}"]
            )
        if style == "one id":
            first["id"] = "call_0"
        form, pieces = self._arguments(value, whole=style == "bare")
        kinds.add(form)
        first["function"]["arguments"] = pieces[0]
        told = [first]
        for part, piece in enumerate(pieces[1:]):
            more: dict[str, Any] = {"function": {"arguments": piece}}
            if "index" in first:
                more["index"] = first["index"]
            if style == "an id each":
                more["id"] = f"y{number}{part}"
            elif self._maybe(0.1):
                more["function"]["name"] = written
                more["id"] = more.get("id") or first.get("id")
            told.append(more)
        return told

    def _arguments(self, value: dict[str, Any], *, whole: bool) -> tuple[str, list[Any]]:
        """The form's name, and the pieces."""
        text = self._written(value)
        if not value:
            none = self._random.choice(["{}", "", "null", " ", None, {}])
            return f"no arguments as {none!r}", [none]
        form = self._random.choice(
            ("pieces", "whole", "empty first", "object", "string", "joined", "list", "marked")
        )
        match form:
            case "list":
                return form, [f"[{text}]"]
            case "marked":
                return form, [text + "<|eot_id|>"]
            case "whole":
                return form, [text]
            case "object":
                return form, [value]
            case "string":
                return form, [json.dumps(text)]
            case "joined":
                return form, ["{}" + text]
            case _ if whole:
                return "whole", [text]
            case "empty first":
                return form, ["{}", *self._pieces(text)]
        return form, ["", *self._pieces(text)]

    # The Messages API.

    def _messages(self) -> Stream:
        meaning = self._meaning(most_calls=3)
        kinds: set[str] = {"messages"}
        start = {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 5}}}
        told: list[dict[str, Any]] = [start]
        blocks: list[list[dict[str, Any]]] = []
        if meaning.thoughts:
            blocks.append(self._block("thinking", meaning.thoughts, kinds))
        if meaning.text:
            blocks.append(self._block("text", meaning.text, kinds))
        blocks += [self._call_block(call, kinds) for call in meaning.calls]
        for index, block in enumerate(blocks):
            told += [{**each, "index": index} for each in block]
        ending, reasons = self._random.choices(
            [
                ("", FAILED),
                ("max_tokens", ("max_tokens", "length")),
                ("refusal", ("refusal",)),
                ("end_turn", ("end_turn", "stop", "tool_use")),
            ],
            [1, 1, 1, 9],
        )[0]
        meaning.stop = "tool_use" if ending == "end_turn" and meaning.calls else ending
        reason = self._random.choice(reasons)
        kinds.add(reason)
        usage = {"output_tokens": 3}
        told.append({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage})
        needed = len(told)
        told += [{"type": "message_stop"}] * self._random.choice([0, 1, 1, 2])
        events = [self._event(each, each["type"] if self._maybe(0.8) else "") for each in told]
        pieces, place = self._framed(events, needed)
        return Stream("messages", kinds, meaning, pieces, place)

    def _block(self, kind: str, text: str, kinds: set[str]) -> list[dict[str, Any]]:
        pieces = self._pieces(text)
        first = pieces.pop(0) if self._maybe(0.2) else ""
        name = "text" if self._maybe(0.2) else kind
        opened = {"type": kind, kind: first}
        if kind == "text" and self._maybe(0.1):
            kinds.add("a block without a type")
            opened.pop("type")
        events = [{"type": "content_block_start", "content_block": opened}]
        for piece in pieces:
            delta = {"type": f"{name}_delta", name: piece}
            events.append({"type": "content_block_delta", "delta": delta})
        if self._maybe(0.9):
            events += [{"type": "content_block_stop"}] * self._random.choice([1, 1, 1, 2])
        else:
            kinds.add("no end of a block")
            events.append({"type": "content_block_stop"})
        return events

    def _call_block(self, call: Call, kinds: set[str]) -> list[dict[str, Any]]:
        name, value = call
        block: dict[str, Any] = {"type": "tool_use", "name": short_name(name, 128), "input": {}}
        call_id = self._random.choice(["functions.X:0", "call_0", "toolu_1", None])
        if call_id is not None:
            block["id"] = call_id
        form, pieces = self._arguments(value, whole=False)
        if form == "object" and self._maybe():
            kinds.add("input with the start")
            block["input"], pieces = value, []
        kinds.add(form)
        events: list[dict[str, Any]] = [{"type": "content_block_start", "content_block": block}]
        for piece in pieces:
            delta = {"type": "input_json_delta", "partial_json": piece}
            events.append({"type": "content_block_delta", "delta": delta})
        return [*events, {"type": "content_block_stop"}]


def _content(piece: str, shape: str) -> dict[str, Any]:
    part = {"type": "text", "text": piece}
    shapes = {"text": piece, "list": [part], "object": part, "strings": [piece]}
    return {"content": shapes[shape]}


def _whole_message(meaning: Meaning) -> dict[str, Any]:
    calls = [
        {"type": "function", "function": {"name": short_name(name), "arguments": json.dumps(value)}}
        for name, value in meaning.calls
    ]
    fields = {"reasoning_content": meaning.thoughts, "content": meaning.text, "tool_calls": calls}
    return {"role": "assistant"} | {name: value for name, value in fields.items() if value}


def reader_of(stream: Stream) -> Reader:
    return chat_reader(**REQUEST) if stream.dialect == "chat" else message_reader(**REQUEST)


def read(stream: Stream, chunks: list[bytes]) -> Meaning | None:
    """What the relay makes of the chunks; None if it reports an error."""
    reader, parser = reader_of(stream), SseParser()
    try:
        for chunk in chunks:
            for event in parser.feed(chunk):
                if not reader.is_done:
                    reader.feed(event)
        for event in parser.finish():
            if not reader.is_done:
                reader.feed(event)
        reader.finish()
    except (BrokenAnswerError, RefusedInStreamError):
        return None
    return meaning_of(fold(reader.take()))


def read_whole(meaning: Meaning) -> Meaning:
    """What the relay makes of the same message in a response that is not streamed."""
    reader = chat_reader(**REQUEST)
    choice = {"message": _whole_message(meaning), "finish_reason": "stop"}
    reader.whole({"choices": [choice]})
    reader.finish()
    return meaning_of(fold(reader.take()))


def meaning_of(message: dict[str, Any]) -> Meaning:
    blocks = message["content"]
    ids = [block["id"] for block in blocks if block["type"] == "tool_use"]
    assert len(ids) == len({*ids, "call_0"}) - 1, "an id is not new"
    return Meaning(
        "".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"],
        message["stop_reason"],
    )


def cut(data: bytes, random: Random) -> list[bytes]:
    places = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(1, 12)))
    edges = [0, *places, len(data)]
    return [data[i:j] for i, j in itertools.pairwise(edges)]


def check(stream: Stream, random: Random, figures: Counter[str]) -> None:
    """Reads one stream whole, cut, and broken off.

    Raises:
        AssertionError: a message differs from what the stream means, or an end is not one.
    """
    wanted = stream.meaning if stream.meaning.stop else None
    figures["streams"] += 1
    figures[f"streams: {stream.dialect}"] += 1
    figures["calls of whole answers"] += len(wanted.calls) if wanted else 0
    for chunks in ([stream.data], cut(stream.data, random), [bytes([b]) for b in stream.data]):
        found = read(stream, chunks)
        assert found == wanted, (stream.kinds, stream.data, found, wanted)
        figures["readings"] += 1
        figures["calls found in all readings"] += len(found.calls) if found else 0
    figures["failures reported"] += wanted is None
    if wanted and stream.dialect == "chat" and wanted.stop in ("end_turn", "tool_use"):
        assert read_whole(wanted) == wanted
        figures["whole answers read"] += 1
    if stream.needed:
        # The last bytes of the piece are its line ends, without which it may count as well.
        before = b"".join(stream.pieces[: stream.needed]).rstrip(b"\r\n")
        place = random.randrange(len(before))
        found = read(stream, [before[:place]])
        assert found is None, (stream.kinds, before[:place], found)
        figures["broken off, reported as an error"] += 1


def run(count: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """The figures, and how often each kind occurred.

    Raises:
        AssertionError: a stream was not read as it is meant.
    """
    figures: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for number in range(count):
        stream = Generator(seed * 100_003 + number).stream()
        check(stream, Random(number), figures)
        kinds.update(stream.kinds)
    return figures, kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    figures, kinds = run(options.count, options.seed)
    for table in (figures, kinds):
        for name, number in sorted(table.items()):
            print(f"{number:7,}  {name}")
        print()


if __name__ == "__main__":
    main()
