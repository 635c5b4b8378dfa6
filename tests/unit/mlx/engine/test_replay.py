"""Answers that a second worker continues, compared with the undisturbed ones.

Both workers are whole: request, grammar, engine and tiny model. What passes between them passes the
front end's `AnswerSoFar`, as it does when a worker dies.
"""

import functools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.jobs import JobMaker
from anyclaude.mlx.kv.budget import StoreLimits
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv_explain.diagnose import Detokenizer
from anyclaude.mlx.kv_explain.explain import Explainer, ExplainLimits
from anyclaude.mlx.model import Model, load
from anyclaude.mlx.prompt import PromptRenderer
from anyclaude.proxy.answer_so_far import AnswerSoFar
from anyclaude.runtime.settings import AnswerSettings, GrammarSettings, MlxSettings, ModelSettings
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.models import saved
from tests.models.answers import BASH
from tests.models.requests import user
from tests.unit.mlx.kv.kv_engine import free_batch

TOOLS = [BASH.model_dump(exclude_none=True)]
ANY_TOOL = {"tools": TOOLS, "tool_choice": {"type": "any"}}
THINKING = {"type": "enabled", "budget_tokens": 20}
# What an answer consists of. A model with random weights writes all kinds of bytes, so characters
# of several bytes and parts of them are among its tokens.
BODIES: dict[str, dict[str, Any]] = {
    "greedy text": {"temperature": 0},
    "sampled text": {"temperature": 1},
    "top_p": {"temperature": 1, "top_p": 0.8, "top_k": 40},
    "stop sequence": {"temperature": 1, "stop_sequences": ["e", "q"]},
    "greedy call": {"temperature": 0, **ANY_TOOL},
    "sampled call": {"temperature": 1, **ANY_TOOL},
    "thinking": {"temperature": 1, "thinking": THINKING},
    "thinking and call": {"temperature": 1, "thinking": THINKING, **ANY_TOOL},
}
MAX_TOKENS = 48


class Worker:
    """The part of an MLX worker that answers, without its process."""

    def __init__(self, model: Model) -> None:
        tokens = model.new_tokenizer()
        explainer = Explainer(
            Detokenizer(lambda ids: str(tokens.decode(ids)), ""), ExplainLimits(), model="any"
        )
        self._jobs = JobMaker(
            model,
            PromptRenderer(tokens),
            model.new_tokenizer(),
            explainer,
            GrammarSettings(),
            AnswerSettings(),
        )
        self.engine = Engine(
            model.weights,
            KVStore(model.weights, StoreLimits(1 << 28)),
            MlxSettings(decode_steps_per_turn=3),
            eos_token_ids=frozenset(int(token) for token in tokens.eos_token_ids),
            batch=free_batch(model.weights),
        )

    def answer(
        self, body: dict[str, Any], name: str, generated: Sequence[int] = ()
    ) -> list[pb.GenerateResponse]:
        """All responses to a request."""
        return self.whole(self.submitted(body, name, generated))

    def submitted(
        self, body: dict[str, Any], name: str, generated: Sequence[int] = ()
    ) -> list[pb.GenerateResponse]:
        """A list to which the responses are added."""
        events: list[pb.GenerateResponse] = []
        request = pb.GenerateRequest(
            request_id=name,
            body_json=json.dumps(body).encode(),
            identity=pb.Identity(session_id=name),
            message_id=f"msg_{name}",
            generated_token_ids=generated,
        )
        self.engine.submit(self._jobs.job(request, events.append).job)
        return events

    def whole(self, events: list[pb.GenerateResponse]) -> list[pb.GenerateResponse]:
        """Runs until the responses are complete."""
        while not events or not events[-1].HasField("finished"):
            assert not (events and events[-1].HasField("failed")), events[-1]
            self.engine.step()
        return events


@dataclass(frozen=True)
class Answer:
    """An answer as a client sees it: content, reason to end, tokens of the prompt and its own."""

    content: list[tuple[int, str, str]]
    stop: tuple[int, str]
    tokens: tuple[int, int]


def seen(events: Sequence[pb.GenerateResponse]) -> Answer:
    content: list[tuple[int, str, str]] = []
    for event in events:
        kind = str(event.WhichOneof("event"))
        if kind not in ("block_start", "block_delta", "block_stop"):
            continue
        part, text = getattr(event, kind), ""
        if kind == "block_start":
            text = f"{part.WhichOneof('block')} {part.tool_use.id} {part.tool_use.name}"
        elif kind == "block_delta":
            kind = str(part.WhichOneof("delta"))
            text = "" if kind == "signature" else getattr(part, kind)
        if kind in ("text", "thinking", "partial_json") and content[-1][:2] == (part.index, kind):
            text = content.pop()[2] + text
        content.append((part.index, kind, text))
    finished, usage = events[-1].finished, events[-1].finished.usage
    prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_creation_tokens
    stop = (finished.stop_reason, finished.stop_sequence)
    return Answer(content, stop, (prompt, usage.output_tokens))


@functools.cache
def model() -> Model:
    """A tiny model with thinking and calls."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="ac-replay-")) / "tiny"
    return load(
        ModelSettings(path=str(saved.save(folder, template="qwen3_5", num_hidden_layers=1)))
    )


@functools.cache
def worker(name: str) -> Worker:
    return Worker(model())


@functools.cache
def undisturbed(kind: str, question: int) -> list[pb.GenerateResponse]:
    return worker("first").answer(body(kind, question), f"{kind} {question}")


def body(kind: str, question: int) -> dict[str, Any]:
    words = user(f"Question {question}?")
    return {"model": "any", "max_tokens": MAX_TOKENS, "messages": [words], **BODIES[kind]}


@pytest.mark.parametrize("kind", list(BODIES))
@settings(max_examples=3, deadline=None)
@given(st.integers(0, 3), st.lists(st.floats(0, 1), min_size=1, max_size=2))
def test_a_continued_answer_is_the_undisturbed_one(
    kind: str, question: int, deaths: list[float]
) -> None:
    """Wherever a worker dies, the client sees the answer that it would have seen without that."""
    whole = undisturbed(kind, question)
    answer = AnswerSoFar(MAX_TOKENS)
    received: list[pb.GenerateResponse] = []
    for place in [*sorted(deaths), None]:
        events = worker("next").answer(body(kind, question), f"{kind} {question}", answer.tokens)
        arrived = len(events) if place is None else int(place * len(events))
        received += answer.receive(events[:arrived])
        if place is not None:
            answer.continue_at_next_worker()

    assert seen(received) == seen(whole)
    assert len(answer.tokens) == whole[-1].finished.usage.output_tokens


def test_answers_of_all_kinds_share_passes() -> None:
    """Samplers, stop sequences, grammars and thinking stay with their own row."""
    together = Worker(model())
    events = {kind: together.submitted(body(kind, 1), f"{kind} 1") for kind in BODIES}
    for kind in BODIES:
        assert seen(together.whole(events[kind])) == seen(undisturbed(kind, 1)), kind
    batch = together.engine.status.batch
    assert batch.tokens > 2 * batch.passes > 0


@pytest.mark.parametrize("kind", list(BODIES))
def test_every_kind_of_answer_occurs(kind: str) -> None:
    """The undisturbed answers contain what their names say, so the test above kills inside it."""
    kinds = {part[1] for n in range(4) for part in seen(undisturbed(kind, n)).content}
    reasons = {seen(undisturbed(kind, n)).stop[0] for n in range(4)}
    if "call" in kind:
        assert "partial_json" in kinds
    if "thinking" in kind:
        assert "thinking" in kinds
    if "text" in kind:
        assert "text" in kinds
    if kind == "stop sequence":
        assert pb.STOP_REASON_STOP_SEQUENCE in reasons
