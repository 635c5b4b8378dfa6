"""Turns a request of the worker contract into a job for the engine.

Everything that comes before the engine happens here: parsing, rendering, tokenising, refusing a
prompt that is too long, and compiling the grammar that constrains the answer. It runs on the
executor's thread only.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from anyclaude.messages.diagnostics import asks_for_diagnostics
from anyclaude.messages.errors import invalid_request, prompt_too_long
from anyclaude.messages.offered import check_demanded, offered_tools
from anyclaude.messages.requests import MessagesRequest, Tool, parse_messages_request
from anyclaude.messages.websearch import only_searches
from anyclaude.messages.windows import window_problem
from anyclaude.mlx.adapter import TokenizerWrapper, opens_thinking
from anyclaude.mlx.decode import BlockStream, ThinkingBudget, make_sampler, seeded, tool_use_ids
from anyclaude.mlx.decode.constraint import AnswerGrammar, ConstraintCompiler
from anyclaude.mlx.decode.loops import LoopLimits
from anyclaude.mlx.decode.repairs import RepairCounts
from anyclaude.mlx.engine.job import Job
from anyclaude.mlx.kv.lineage import LineageKey
from anyclaude.mlx.kv_explain.explain import Explainer
from anyclaude.mlx.kv_explain.remembered import RequestFacts
from anyclaude.mlx.model import Model
from anyclaude.mlx.prompt import Prompt, PromptRenderer
from anyclaude.mlx.prompt.canonical import wants_thinking
from anyclaude.mlx.prompt.splice import AnswerPosition
from anyclaude.mlx.prompt.summary import AnswerRecorder
from anyclaude.mlx.tokens import TokenArray, token_array, token_digest
from anyclaude.runtime.settings import AnswerSettings, GrammarSettings
from anyclaude.worker.v1 import worker_pb2 as pb


class NothingToGenerate(Exception):
    """The request is answered without the model, because nothing here can do what it asks for."""

    def __init__(self, prompt_tokens: int) -> None:
        super().__init__(prompt_tokens)
        self.prompt_tokens = prompt_tokens


@dataclass(frozen=True)
class Answering:
    """A request that the engine answers."""

    job: Job
    # With the answer, as far as it was generated.
    facts: RequestFacts
    applied_edits: tuple[pb.AppliedEdit, ...] = ()


class JobMaker:
    """Makes jobs for one model."""

    def __init__(
        self,
        model: Model,
        renderer: PromptRenderer,
        decode_tokenizer: TokenizerWrapper,
        explainer: Explainer,
        grammar_limits: GrammarSettings,
        answers: AnswerSettings,
    ) -> None:
        self._model = model
        self._renderer = renderer
        # For the MLX thread only, while the renderer's tokenizer is for the executor's thread only.
        self._decode_tokenizer = decode_tokenizer
        self._explainer = explainer
        self._constraints = ConstraintCompiler.of(decode_tokenizer, grammar_limits)
        self._answers = answers
        self._loops = _loop_limits(answers)
        # Counted on the MLX thread, read on any.
        self.repairs = RepairCounts()

    @property
    def loosened_schemas(self) -> list[str]:
        """What is not enforced of the schemas of tools that were offered lately; on any thread."""
        if self._constraints is None:
            return []
        return [
            f"{'.'.join(filter(None, (tool, problem.place)))}: {problem.cause}"
            for tool, problems in self._constraints.problems.items()
            for problem in problems
        ]

    def job(
        self, request: pb.GenerateRequest, emit: Callable[[pb.GenerateResponse], None]
    ) -> Answering:
        """Renders a request; the MLX thread calls `emit` with each event of the answer.

        Raises:
            ApiError: the request cannot be answered.
            NothingToGenerate: the request is answered without the model.
        """
        began = time.monotonic()
        body = parse_messages_request(request.body_json)
        prompt = self._renderer.render(body)
        window = self._model.info.context_window_tokens
        left = window - len(prompt.token_ids)
        if left < 1:
            raise prompt_too_long(len(prompt.token_ids), window, window_problem(window))
        if only_searches(body):
            raise NothingToGenerate(len(prompt.token_ids))
        check_demanded(body)
        max_tokens = min(body.max_tokens, left)
        in_thinking = opens_thinking(self._decode_tokenizer, prompt.token_ids)
        grammar = self._grammar(body, in_thinking=in_thinking)
        budget = self._budget(body, in_thinking=in_thinking)
        sampler = self._sampler(body, grammar, budget)
        retries = failed_turns(body) < self._answers.unreadable_turns
        facts = _facts(request, body, prompt)
        generated = token_array(request.generated_token_ids)
        job = Job(
            request_id=request.request_id,
            lineage=_lineage(request.identity, prompt),
            token_ids=np.concatenate((prompt.token_ids, generated)),
            generated_tokens=len(generated),
            marks=prompt.cut_points,
            stable_tokens=prompt.stable_tokens,
            max_tokens=max_tokens,
            window_limited=body.max_tokens > left,
            sampler=seeded(sampler, _seed(request.message_id), len(generated)),
            new_blocks=lambda: BlockStream(
                self._decode_tokenizer,
                _client_tools(body),
                body.stop_sequences,
                tool_choice=body.tool_choice,
                in_thinking=in_thinking,
                grammar=grammar,
                budget=budget,
                max_tokens=max_tokens,
                loops=self._loops,
                retries=retries,
                repairs=self.repairs,
                new_id=tool_use_ids(request.message_id),
            ),
            emit=emit,
            guide=grammar.constraint if grammar is not None else None,
            keep=request.identity.request_class != pb.REQUEST_CLASS_UTILITY,
            listener=self._explainer.request(facts),
            answered=self._on_answered(prompt.answer_position, facts.answer),
            render_seconds=time.monotonic() - began,
            created=began,
        )
        return Answering(job, facts, prompt.applied_edits)

    def job_ahead(
        self, answered: Answering, emit: Callable[[pb.GenerateResponse], None]
    ) -> Job | None:
        """A job that computes what the conversation's next question will begin with.

        None if there is nothing to compute.
        """
        facts, job = answered.facts, answered.job
        body = parse_messages_request(facts.body)
        prompt = self._renderer.before_next_question(body, facts.answer.echo())
        if prompt is None or len(prompt.token_ids) >= self._model.info.context_window_tokens:
            return None
        return replace(
            job,
            request_id=f"ahead_{job.request_id}",
            token_ids=prompt.token_ids,
            generated_tokens=0,
            marks=prompt.cut_points,
            stable_tokens=prompt.stable_tokens,
            max_tokens=0,
            emit=emit,
            listener=None,
            answered=None,
            ahead=True,
        )

    def _on_answered(
        self, position: AnswerPosition | None, answer: AnswerRecorder
    ) -> Callable[[TokenArray], None] | None:
        """Keeps the answer's tokens for later prompts; None if answers are not spliced."""
        if position is None:
            return None
        return lambda generated: self._renderer.keep_answer(position, generated, answer.echo())

    def _budget(self, body: MessagesRequest, *, in_thinking: bool) -> ThinkingBudget | None:
        """The budget for thinking; None if the client sets none."""
        thinking = body.thinking or {}
        tokens, end = thinking.get("budget_tokens"), self._decode_tokenizer.think_end_tokens
        if thinking.get("type") != "enabled" or not isinstance(tokens, int) or not end:
            return None
        return ThinkingBudget(tokens, end, in_thinking=in_thinking)

    def _sampler(
        self, body: MessagesRequest, grammar: AnswerGrammar | None, budget: ThinkingBudget | None
    ) -> Callable[[Any], Any]:
        own = self._model.sampling
        top_p = own.top_p if body.top_p is None else body.top_p
        sampler = make_sampler(
            own.temperature if body.temperature is None else body.temperature,
            top_p,
            own.top_k if body.top_k is None else body.top_k,
            own.min_p,
        )
        if budget is not None:
            sampler = budget.sampler(sampler)
        if grammar is None:
            return sampler
        # Only top-p compares probabilities; 0 and 1 select without comparing.
        return grammar.constraint.sampler(sampler, needs_probabilities=top_p not in (None, 0, 1))

    def _grammar(self, body: MessagesRequest, *, in_thinking: bool) -> AnswerGrammar | None:
        if self._constraints is None:
            return None
        return self._constraints.compile(
            _client_tools(body),
            body.tool_choice,
            body.answer_schema,
            in_thinking=in_thinking,
            may_think=wants_thinking(body),
        )


def _loop_limits(answers: AnswerSettings) -> LoopLimits | None:
    if not answers.end_loops:
        return None
    return LoopLimits(answers.loop_prose_tokens, answers.loop_code_tokens, answers.loop_equal_calls)


def failed_turns(body: MessagesRequest) -> int:
    """The number of latest assistant turns that only called tools which were not offered.

    Calls that cannot be read are sent as calls of such a tool (`decode/call_writer.py`).
    """
    offered = {tool.name for tool in body.tools}
    count = 0
    for message in reversed(body.messages):
        if message.role != "assistant":
            continue
        names = [block.get("name") for block in message.blocks() if block["type"] == "tool_use"]
        if not names or offered.intersection(names):
            break
        count += 1
    return count


def _seed(message_id: str) -> int:
    return int.from_bytes(sha256(message_id.encode()).digest()[:8])


def _client_tools(body: MessagesRequest) -> list[Tool]:
    return offered_tools(body)


def _facts(request: pb.GenerateRequest, body: MessagesRequest, prompt: Prompt) -> RequestFacts:
    wants, previous = asks_for_diagnostics(body)
    return RequestFacts(
        request.request_id,
        request.body_json,
        prompt.cut_points,
        len(prompt.token_ids),
        message_id=request.message_id,
        wants_diagnostics=wants,
        previous_message_id=previous,
    )


def _lineage(identity: pb.Identity, prompt: Prompt) -> LineageKey:
    """The conversation that a request belongs to.

    If a client sends no session id, the tokens up to the end of its first message identify it.
    """
    tokens = token_array(prompt.token_ids)
    session = identity.session_id
    if not session:
        first = next((cut for cut in prompt.cut_points if cut > prompt.stable_tokens), 0)
        session = f"anonymous-{token_digest(tokens[:first])}"
    return LineageKey(session, identity.agent_id, token_digest(tokens[: prompt.stable_tokens]))


def warm_up_body(given: bytes) -> bytes:
    """The body of a request that computes a prompt and generates nothing, for `cache warm`.

    Messages may be missing in `given`.

    Raises:
        ApiError: it is not a JSON object, or contains nothing to compute.
    """
    if not given.strip():
        raise invalid_request("The file is empty. It must hold a Messages request as JSON.")
    try:
        body = json.loads(given)
    except ValueError as error:
        raise invalid_request(f"The file is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise invalid_request("The file is no Messages request: it must be a JSON object.")
    if not any(body.get(part) for part in ("system", "tools", "messages")):
        raise invalid_request(
            "The request has no prompt to compute: give it `system`, `tools` or `messages`."
        )
    # Only the stable prefix is to be computed, so any first message will do.
    messages = [{"role": "user", "content": "Hello."}]
    whole = {"model": "any", "messages": messages, **body, "max_tokens": 0}
    whole["messages"] = whole["messages"] or messages
    whole.pop("stream", None)
    return json.dumps(whole).encode()
