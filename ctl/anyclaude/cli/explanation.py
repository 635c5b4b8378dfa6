"""An explanation of one request's reuse, in words for people."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from anyclaude.cli.output import Cell, Tone
from anyclaude.worker.v1 import worker_pb2

if TYPE_CHECKING:
    from anyclaude.worker.v1.worker_pb2 import Divergence, Explanation, ToolChange

SENTENCES: Final = {
    worker_pb2.REUSE_CAUSE_FIRST_SIGHT: "nothing that is kept begins as this prompt does",
    worker_pb2.REUSE_CAUSE_NEW_LINEAGE: "a new conversation, begun from a kept prefix",
    worker_pb2.REUSE_CAUSE_EXTENDED: "the conversation goes on; only what is new was computed",
    worker_pb2.REUSE_CAUSE_EDITED_HISTORY: "an earlier message changed",
    worker_pb2.REUSE_CAUSE_REJOINED: "it left its latest turn and continues another kept one",
    worker_pb2.REUSE_CAUSE_NOT_KEPT: "a short side call, which leaves nothing behind",
    worker_pb2.REUSE_CAUSE_EVICTED: "what was kept had to make room",
    worker_pb2.REUSE_CAUSE_PRUNED: "what was kept was pruned",
    worker_pb2.REUSE_CAUSE_CORRUPT_RECORD: "its record on disk was damaged",
    worker_pb2.REUSE_CAUSE_CHECKPOINT: "the model has layers that go back to saved states only",
    worker_pb2.REUSE_CAUSE_TOOLS_CHANGED: "the tools changed",
    worker_pb2.REUSE_CAUSE_INSTRUCTIONS_CHANGED: "the instructions changed",
    worker_pb2.REUSE_CAUSE_THINKING_CHANGED: "thinking was switched on or off",
    worker_pb2.REUSE_CAUSE_MODEL_CHANGED: "what is kept was computed by another model",
    worker_pb2.REUSE_CAUSE_THINKING_DROPPED: "the chat template left out earlier thinking",
    worker_pb2.REUSE_CAUSE_ANSWER_RENDERED_DIFFERENTLY: (
        "the answer came back as it was, and the chat template wrote it in other tokens"
    ),
    worker_pb2.REUSE_CAUSE_TEMPLATE_VARIED: "the chat template wrote the same in another way",
    worker_pb2.REUSE_CAUSE_FORGOTTEN: (
        "it differs from what is kept, and what was said then is not known any more"
    ),
    worker_pb2.REUSE_CAUSE_UNKNOWN: "nothing that is remembered says why",
}


def lines(explanation: "Explanation") -> Iterator[tuple[str, str | Cell]]:
    """Names and values, the most telling first."""
    from anyclaude.cli.convert import word_of

    word = word_of(explanation, "cause")
    yield "cause", f"{word}: {SENTENCES.get(explanation.cause, 'see a newer anyclaudectl')}"
    yield "reused", _reused(explanation)
    yield "computed", f"{explanation.computed_tokens} tokens"
    if explanation.HasField("lost_time"):
        yield "lost", explanation.lost_time.ToJsonString()
    for tool in explanation.tools:
        yield "tool", _tool(tool)
    for place in explanation.instructions:
        yield "instructions", f"text {place}"
    if explanation.HasField("divergence"):
        yield from _divergence(explanation.divergence)
    yield "conversation", " ".join(filter(None, (explanation.session_id, explanation.agent_id)))


def _reused(explanation: "Explanation") -> str:
    tiers = {
        "live": explanation.reused_live_tokens,
        "memory": explanation.reused_memory_tokens,
        "disk": explanation.reused_disk_tokens,
    }
    total = sum(tiers.values())
    found = ", ".join(f"{tokens} {tier}" for tier, tokens in tiers.items() if tokens)
    where = f" ({found})" if found else ""
    return f"{total} of {explanation.prompt_tokens} tokens{where}"


def _tool(change: "ToolChange") -> str:
    from anyclaude.cli.convert import word_of

    fields = f": {', '.join(change.fields)}" if change.fields else ""
    return f"{change.name} {word_of(change, 'kind')}{fields}"


def _divergence(divergence: "Divergence") -> Iterator[tuple[str, str | Cell]]:
    where = f"token {divergence.offset}"
    if divergence.HasField("message"):
        where += f", messages.{divergence.message}"
    yield "diverges", where
    # As Python spells them, so that line ends and control characters show.
    yield "shared", Cell(repr(divergence.before), Tone.DIM)
    yield "kept", repr(divergence.kept)
    yield "came", repr(divergence.came)
