"""`anyclaudectl cache explain`: why a request reused what it did, in words for people."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.convert import to_dict, word_of
from anyclaude.cli.output import Cell, Json, Tone, emit, facts
from anyclaude.cli.units import counted

if TYPE_CHECKING:
    from anyclaude.cache.v1.cache_pb2 import Divergence, Explanation, ToolChange
    from anyclaude.cli.client import ControlClient

# How many of the newest requests a shortened id is looked for in.
_REQUESTS: Final = 1000

# Sentences by the word of the cause, as `--json` prints it.
SENTENCES: Final = {
    "first_sight": "no kept prompt begins like this one",
    "new_lineage": "a new conversation, begun from a kept prefix",
    "extended": "the conversation continues; only new tokens were computed",
    "edited_history": "an earlier message changed",
    "rejoined": "it left its latest turn and continues another kept one",
    "not_kept": "a short side call, whose cache is not kept",
    "evicted": "the kept segments were evicted",
    "pruned": "the kept segments were pruned",
    "corrupt_record": "its record on disk was damaged",
    "checkpoint": "the model has layers that can only be restored from saved states",
    "tools_changed": "the tools changed",
    "instructions_changed": "the instructions changed",
    "thinking_changed": "thinking was switched on or off",
    "model_changed": "what is kept was computed by another model",
    "thinking_dropped": "the chat template left out earlier thinking",
    "answer_rendered_differently": (
        "the answer came back unchanged, and the chat template wrote it in other tokens"
    ),
    "template_varied": "the chat template wrote the same in another way",
    "forgotten": "it differs from what is kept, and the earlier messages are not remembered",
    "computed_ahead": "the prompt was written anew, and computed before the question came",
    "unknown": "no remembered fact explains it",
}


def explain(
    request_id: Annotated[str, typer.Argument(help="As `requests` prints it, or whole.")],
    json: Json = False,
) -> None:
    """Say why a request reused what it did, and where it left what was kept."""
    from anyclaude.cache.v1 import cache_pb2

    with connect() as client:
        request = cache_pb2.ExplainCacheRequest(request_id=_whole(request_id, client))
        explanation = client.call(client.caches.ExplainCache, request).explanation
    if json:
        emit({"explanation": to_dict(explanation)})
        return
    facts(list(_lines(explanation)))


def _whole(beginning: str, client: "ControlClient") -> str:
    """The newest request whose id begins so; the beginning itself if none is known."""
    ids = (record.request_id for record in client.requests(_REQUESTS).records)
    return next((each for each in ids if each.startswith(beginning)), beginning)


def _lines(explanation: "Explanation") -> Iterator[tuple[str, str | Cell]]:
    """Names and values, the most important first."""
    word = word_of(explanation, "cause")
    yield "cause", f"{word}: {SENTENCES.get(word, 'this anyclaudectl is too old to explain it')}"
    yield "reused", _reused(explanation)
    if explanation.reused_ahead_tokens:
        yield "ahead", f"{explanation.reused_ahead_tokens} of them computed while nobody waited"
    yield "computed", counted(explanation.computed_tokens, "token")
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
