"""Conversations through the real renderer, engine and store of a tiny model, each explained.

Answers are scripted token by token, so that a test decides what comes back and how it was written.
"""

import functools
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper

from anyclaude.cache.v1.cache_pb2 import Explanation
from anyclaude.messages.requests import Message, MessagesRequest, parse_messages_request
from anyclaude.mlx.adapter import opens_thinking
from anyclaude.mlx.decode import BlockStream
from anyclaude.mlx.engine.engine import Engine
from anyclaude.mlx.engine.job import Job
from anyclaude.mlx.kv.budget import StoreLimits
from anyclaude.mlx.kv.lineage import LineageKey
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv_disk import Bounds, DiskTier
from anyclaude.mlx.kv_disk.archive import Archive
from anyclaude.mlx.kv_explain.diagnose import Detokenizer
from anyclaude.mlx.kv_explain.explain import Explainer, ExplainLimits
from anyclaude.mlx.kv_explain.remembered import RequestFacts
from anyclaude.mlx.prompt import Prompt, PromptRenderer
from anyclaude.mlx.prompt.stored_folder import StoredFolder
from anyclaude.mlx.tokens import token_digest
from anyclaude.runtime.settings import MlxSettings
from anyclaude.worker.v1 import worker_pb2 as pb
from tests.models import tiny
from tests.models.requests import Block, assistant, call, result, user
from tests.models.tokenizers import tokenizer

LIMIT_BYTES: Final = 1 << 30
_WORDS: Final = ("read", "the file", "then run", "tests and", "answer", "naïve", "x < y", "🦊")


@functools.cache
def _model(family: tiny.Family, vocabulary: int) -> Any:
    return tiny.build(family, vocabulary)


@functools.cache
def _renderer(words: TokenizerWrapper) -> PromptRenderer:
    return PromptRenderer(words)


def sentence(rng: random.Random, count: int = 8) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(count)) + f" {rng.randrange(10**6)}."


def tool(rng: random.Random, name: str) -> Block:
    schema = {
        "type": "object",
        "properties": {
            "command": {"type": "string", "description": sentence(rng, 3)},
            "timeout": {"type": "integer"},
        },
    }
    return {"name": name, "description": sentence(rng), "input_schema": schema}


def start(rng: random.Random, **fields: Any) -> Block:
    """The body of a first request: tools, instructions and a question."""
    names = ("Bash", "Read", "Edit")
    return {
        "model": "any",
        "max_tokens": 400,
        "system": sentence(rng, 30),
        "tools": [tool(rng, name) for name in names],
        "messages": [user(sentence(rng))],
    } | fields


@dataclass
class Outcome:
    """The result of one request."""

    request: Block
    finished: pb.Finished
    started: pb.Started
    explanation: Explanation
    content: list[Block]

    @property
    def cause(self) -> str:
        return pb.ReuseCause.Name(self.finished.reuse_cause).removeprefix("REUSE_CAUSE_").lower()

    def next(self, *messages: Block, **fields: Any) -> Block:
        """The next request: this one's messages, the answer as it came, then the given ones."""
        return (
            self.request
            | fields
            | {"messages": [*self.request["messages"], assistant(*self.content), *messages]}
        )


@dataclass
class Talk:
    """One worker's engine; `restarted` is the next process on the same folder."""

    template: str = "chatml"
    family: tiny.Family = tiny.Family.DENSE
    folder: Path | None = None
    words: TokenizerWrapper | None = None
    model: str = "one"
    checkpoints: int = 8
    # Whether later prompts contain answers in the model's own tokens.
    spliced: bool = False
    limits: ExplainLimits = ExplainLimits()  # noqa: RUF009 - frozen
    counter: Iterator[int] = field(default_factory=itertools.count)
    latest: int = 0

    def __post_init__(self) -> None:
        self.tokens = self.words or tokenizer(self.template)
        model = _model(self.family, len(self.tokens))
        detokenizer = Detokenizer(
            lambda ids: self.decode(ids),
            self.tokens.think_start if self.tokens.has_thinking else "",
        )
        notes = self.folder / "notes" if self.folder else None
        self.answers = self._answers()
        self.renderer = (
            PromptRenderer(self.tokens, spliced_bytes=1 << 26, stored=self.answers)
            if self.spliced
            else _renderer(self.tokens)
        )
        self.explainer = Explainer(
            detokenizer, replace(self.limits, notes_folder=notes), model=self.model
        )
        self.disk = self._disk()
        store_limits = StoreLimits(
            LIMIT_BYTES, checkpoints_per_lineage=self.checkpoints, min_prefix_tokens=16
        )
        self.store = KVStore(
            model,
            store_limits,
            storage=Archive(self.disk) if self.disk else None,
            listeners=[self.explainer],
        )
        self.engine = Engine(
            model,
            self.store,
            MlxSettings(prefill_chunk_tokens=256, decode_steps_per_turn=16),
            eos_token_ids=frozenset({self.tokens.convert_tokens_to_ids("<|im_end|>")}),
        )

    def decode(self, ids: Any) -> str:
        return str(self.tokens.decode(ids))

    def _disk(self) -> DiskTier | None:
        if self.folder is None:
            return None
        bounds = Bounds(min_free_bytes=0)
        return DiskTier(self.folder / "kv", self.model, 1 << 30, bounds=bounds)

    def _answers(self) -> StoredFolder | None:
        if self.folder is None:
            return None
        return StoredFolder(self.folder / "answers", self.model, 1 << 26)

    def restarted(self, **changes: Any) -> "Talk":
        assert self.disk is not None
        assert self.answers is not None
        self.disk.flush()
        self.disk.close()
        self.answers.close(60.0)
        return replace(self, **changes)

    def close(self) -> None:
        if self.disk is not None:
            self.disk.close()

    def send(
        self,
        body: Block,
        answer: str = "Done.",
        *,
        session: str = "main",
        keep: bool = True,
        message_id: str = "",
    ) -> Outcome:
        """Runs one request to its end; returns its outcome with the explanation."""
        events = self._run(body, answer, session, keep=keep, message_id=message_id)
        explanation = self.explainer.get(f"req_{self.latest}")
        assert explanation is not None
        return Outcome(
            body, events[-1].finished, events[0].started, explanation, list(_content(events))
        )

    def compute_ahead(self, outcome: Outcome, *, session: str = "main") -> None:
        """Computes what the next question after an answer will begin with."""
        request = parse_messages_request(json.dumps(outcome.request).encode())
        prompt = self.renderer.before_next_question(request, Message(**assistant(*outcome.content)))
        assert prompt is not None
        events: list[pb.GenerateResponse] = []
        self.engine.submit(
            Job(
                request_id="ahead",
                lineage=LineageKey(
                    session, "", token_digest(prompt.token_ids[: prompt.stable_tokens])
                ),
                token_ids=prompt.token_ids,
                marks=prompt.cut_points,
                stable_tokens=prompt.stable_tokens,
                max_tokens=0,
                window_limited=False,
                sampler=self._script(""),
                new_blocks=lambda: self._blocks(request, opened=False),
                emit=events.append,
                ahead=True,
            )
        )
        while not events or not events[-1].HasField("finished"):
            assert not (events and events[-1].HasField("failed")), events[-1]
            self.engine.step()

    def finish(self, body: Block) -> pb.Finished:
        """Runs one request to its end, with or without an explanation."""
        return self._run(body, "Done.", "main", keep=True, message_id="")[-1].finished

    def _run(
        self, body: Block, answer: str, session: str, *, keep: bool, message_id: str
    ) -> list[pb.GenerateResponse]:
        raw = json.dumps(body).encode()
        request = parse_messages_request(raw)
        prompt = self.renderer.render(request)
        self.latest = next(self.counter)
        name = f"req_{self.latest}"
        events: list[pb.GenerateResponse] = []
        stable = token_digest(prompt.token_ids[: prompt.stable_tokens])
        diagnostics = body.get("diagnostics")
        facts = RequestFacts(
            name,
            raw,
            prompt.cut_points,
            len(prompt.token_ids),
            message_id=message_id,
            wants_diagnostics=diagnostics is not None,
            previous_message_id=(diagnostics or {}).get("previous_message_id") or "",
        )
        self.engine.submit(
            Job(
                request_id=name,
                lineage=LineageKey(session, "", stable),
                token_ids=prompt.token_ids,
                marks=prompt.cut_points,
                stable_tokens=prompt.stable_tokens,
                max_tokens=request.max_tokens,
                window_limited=False,
                sampler=self._script(answer),
                new_blocks=lambda: self._blocks(
                    request, opened=opens_thinking(self.tokens, prompt.token_ids)
                ),
                emit=events.append,
                keep=keep,
                listener=self.explainer.request(facts),
                answered=self._keeping(prompt, facts),
            )
        )
        while not events or not events[-1].HasField("finished"):
            assert not (events and events[-1].HasField("failed")), events[-1]
            self.engine.step()
        return events

    def _keeping(self, prompt: Prompt, facts: RequestFacts) -> Any:
        if prompt.answer_position is None:
            return None
        place = prompt.answer_position
        return lambda ids: self.renderer.keep_answer(place, ids, facts.answer.echo())

    def _script(self, answer: str) -> Any:
        ids = self.tokens.encode(answer, add_special_tokens=False)
        ids.append(self.tokens.convert_tokens_to_ids("<|im_end|>"))
        script = iter(ids)
        # A step runs ahead of what is handed out.
        return lambda logprobs: mx.array([next(script, ids[-1])])

    def _blocks(self, request: MessagesRequest, *, opened: bool) -> BlockStream:
        tools = [tool for tool in request.tools if tool.is_client_tool]
        return BlockStream(self.tokens, tools, (), in_thinking=opened)


def _content(events: list[pb.GenerateResponse]) -> Iterator[Block]:
    """The answer as a client assembles it."""
    for index, event in enumerate(events):
        if not event.HasField("block_start"):
            continue
        start_, deltas = event.block_start, [e.block_delta for e in events[index:]]
        mine = [d for d in deltas if d.index == start_.index]
        text = "".join(d.text or d.thinking or d.partial_json for d in mine)
        match start_.WhichOneof("block"):
            case "text" if text:
                yield {"type": "text", "text": text}
            case "thinking" if text:
                yield {"type": "thinking", "thinking": text, "signature": "ours"}
            case "tool_use":
                tool = start_.tool_use
                yield {
                    "type": "tool_use",
                    "id": tool.id,
                    "name": tool.name,
                    "input": json.loads(text or "{}"),
                }


def conversation(talk: Talk, rng: random.Random, turns: int, **send: Any) -> Outcome:
    """A conversation of some length in which each turn extends the one before."""
    outcome = talk.send(start(rng), sentence(rng), **send)
    for _ in range(turns - 1):
        words = [user(sentence(rng))]
        if rng.random() < 0.4:
            # A call of an earlier turn, made up by the client.
            words = [user("go"), assistant(call("c1")), user(result("c1", sentence(rng)))]
        outcome = talk.send(outcome.next(*words), sentence(rng), **send)
        assert outcome.cause == "extended"
    return outcome
