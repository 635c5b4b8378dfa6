"""Constrained calls of a model that writes at random: each is valid, or reported as cut off.

    python -m benchmarks.constrained_calls [CALLS]

A tiny model with random weights answers with tool_choice `any` and 25 tools like Claude Code's, in
the notation of each family, through the real engine, grammar and reader. With bounded schemas,
every call is validated against its tool's schema. With unbounded strings and few tokens, the answer
is cut off, its stop reason says so, and only a call whose arguments were whole is ended in it.
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

# With few tokens left a call is buffered, and with more it is streamed.
CUT_AT_TOKENS = (60, 600)
ENOUGH_TOKENS = 4_000


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    each, more = divmod(wanted, len(CONSTRAINED))
    names: collections.Counter[str] = collections.Counter()
    cut = 0
    for index, family in enumerate(CONSTRAINED):
        began, generator, count = time.perf_counter(), Generator(family), each + (index < more)
        for seed in range(count):
            names[valid_call(generator.answer(tools(), seed, max_tokens=ENOUGH_TOKENS))] += 1
            limit = CUT_AT_TOKENS[seed % len(CUT_AT_TOKENS)]
            cut += was_cut(generator.answer(tools(bounded=False), seed, max_tokens=limit))
        print(f"{family}: {count} valid calls in {time.perf_counter() - began:.0f} s", flush=True)
    print(f"{names.total()} of {wanted} calls valid, of {len(names)} tools; {cut} answers cut")
    assert names.total() == wanted


def valid_call(answer: ConstrainedAnswer) -> str:
    """The name of the only call's tool, whose schema must accept the input."""
    (call,) = read_blocks(answer.blocks)
    schema = next(tool.input_schema for tool in tools() if tool.name == call.name)
    assert schema is not None
    jsonschema.validate(call.input, schema)
    assert answer.stop_reason == pb.STOP_REASON_TOOL_USE
    return str(call.name)


def was_cut(answer: ConstrainedAnswer) -> bool:
    """Whether the answer was cut off; then it must say so, and a call that it ends is valid."""
    if answer.stop_reason == pb.STOP_REASON_TOOL_USE:
        valid_end(answer)
        return False
    assert answer.stop_reason == pb.STOP_REASON_MAX_TOKENS
    if answer.ended_calls:
        # Only the end marker behind the arguments was cut off.
        valid_end(answer)
    return True


def valid_end(answer: ConstrainedAnswer) -> None:
    """A call that was ended is valid, although its strings are not limited."""
    (call,) = read_blocks(answer.blocks)
    assert call.kind == "tool_use"
    schema = next(t.input_schema for t in tools(bounded=False) if t.name == call.name)
    assert schema is not None
    jsonschema.validate(call.input, schema)


if __name__ == "__main__":
    main()
