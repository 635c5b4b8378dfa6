"""Calls of a model that writes at random, held to its tools: every one is valid, or told as cut.

    python -m benchmarks.constrained_calls [CALLS]

A tiny model with random weights, the real engine, grammar and reader; tool_choice any over 25 tools
of Claude Code's shapes; each family's way to write calls in turn. Bounded tools: every call is
checked against its tool's JSON schema. Unbounded strings and little room: an answer is cut, its
stop reason says so, and no call in it is closed as if it were whole.
"""

import collections
import sys
import time

import jsonschema

from anyclaude.worker.v1 import worker_pb2 as pb
from tests.models.answers import read_blocks
from tests.models.claude_tools import tools
from tests.models.constrained_answers import ConstrainedAnswer, Generator
from tests.models.families import CONSTRAINED

# With little room a call is gathered before it is given out; with more it is streamed.
CUT_AT_TOKENS = (60, 600)
ROOM_TOKENS = 4_000


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    each, more = divmod(wanted, len(CONSTRAINED))
    names: collections.Counter[str] = collections.Counter()
    cut = 0
    for index, family in enumerate(CONSTRAINED):
        began, generator, count = time.perf_counter(), Generator(family), each + (index < more)
        for seed in range(count):
            names[valid_call(generator.answer(tools(), seed, max_tokens=ROOM_TOKENS))] += 1
            room = CUT_AT_TOKENS[seed % len(CUT_AT_TOKENS)]
            cut += was_cut(generator.answer(tools(bounded=False), seed, max_tokens=room))
        print(f"{family}: {count} valid calls in {time.perf_counter() - began:.0f} s", flush=True)
    print(f"{names.total()} of {wanted} calls valid, of {len(names)} tools; {cut} answers cut")
    assert names.total() == wanted


def valid_call(answer: ConstrainedAnswer) -> str:
    """The tool of the one call, which its schema must accept."""
    (call,) = read_blocks(answer.blocks)
    schema = next(tool.input_schema for tool in tools() if tool.name == call.name)
    jsonschema.validate(call.input, schema)
    assert answer.stop_reason == pb.STOP_REASON_TOOL_USE
    return str(call.name)


def was_cut(answer: ConstrainedAnswer) -> bool:
    """Whether the answer ran out of room; if it did, it must say so and hold no whole call."""
    if answer.stop_reason == pb.STOP_REASON_TOOL_USE:
        valid_end(answer)
        return False
    assert answer.stop_reason == pb.STOP_REASON_MAX_TOKENS
    assert answer.ended_calls == 0, "a cut call was closed"
    return True


def valid_end(answer: ConstrainedAnswer) -> None:
    """A call that ended by itself is whole, although its strings had no bound."""
    (call,) = read_blocks(answer.blocks)
    schema = next(t.input_schema for t in tools(bounded=False) if t.name == call.name)
    jsonschema.validate(call.input, schema)


if __name__ == "__main__":
    main()
