"""One request from lookup to stop reason, as a generator that yields after every step.

A step is a prefill chunk, or one pass that decodes; a turn is a prefill chunk or a few passes.
Between them the scheduler runs other requests, and closing the generator cancels this one. However
a request ends, its cache is valid for the tokens in it, so what was computed is kept.

An answer that an earlier worker began is replayed: its tokens are prefilled with the prompt, and
pass through the same steps as new tokens. So whatever follows the answer (blocks, grammar, counts)
is in the state that it had in that worker.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from functools import partial

import structlog

from anyclaude.mlx.adapter import LanguageModel, evaluate, prefill
from anyclaude.mlx.engine.decoding import Decoding
from anyclaude.mlx.engine.drafts import Drafter, DraftLimits, PassCosts
from anyclaude.mlx.engine.job import Blocks, Job
from anyclaude.mlx.kv.lineage import RESPONSE_TOKENS, Lease
from anyclaude.mlx.kv.store import KVStore
from anyclaude.worker.v1 import worker_pb2 as pb

log = structlog.get_logger(__name__)


class DecodingError(Exception):
    """An answer's text could not be turned into blocks; the model and caches are sound."""


class Generation:
    """A running request."""

    def __init__(
        self,
        job: Job,
        model: LanguageModel,
        store: KVStore,
        *,
        eos_token_ids: frozenset[int],
        chunk_tokens: Callable[[int], int],
        timed: Callable[[int], AbstractContextManager[None]],
        decode_steps_per_turn: int,
        drafts: DraftLimits,
        pass_costs: PassCosts,
    ) -> None:
        """
        Args:
            chunk_tokens: the size of the next prefill chunk, given the tokens before it.
            timed: measures a chunk of so many tokens, which runs within its context.
            pass_costs: what passes over drafts cost, measured by all requests.
        """
        self.job = job
        self.created = time.monotonic()
        # Set while the request decodes.
        self.decoding: Decoding | None = None
        self._model = model
        self._store = store
        self._eos = eos_token_ids
        self._chunk_tokens = chunk_tokens
        self._timed = timed
        self._decode_steps = decode_steps_per_turn
        self._drafts = drafts
        self._pass_costs = pass_costs
        self.usage = pb.Usage()
        self._lease: Lease | None = None
        self._timings = pb.Timings()
        # Generated tokens that no response carried yet.
        self._unsent: list[int] = []
        self.decoded = pb.Decoded()
        # Each step yields whether a turn ends with it.
        self._steps = self._run()

    def turn(self) -> bool:
        """Runs one turn; False once the request is done."""
        while (is_end := next(self._steps, None)) is False:
            pass
        return is_end is not None

    def step(self) -> bool:
        """Runs one step of a turn; False once the request is done."""
        return next(self._steps, None) is not None

    @property
    def ahead_tokens(self) -> int:
        """The reused tokens that were computed before this request came."""
        return self._lease.lookup.ahead_tokens if self._lease else 0

    @property
    def prefilled_tokens(self) -> int:
        """The tokens of the prompt that were computed so far."""
        return len(self._lease.live) - self._lease.lookup.reused if self._lease else 0

    def cancel(self) -> None:
        """Ends the lease at once; nothing more is emitted."""
        self._steps.close()

    def _run(self) -> Generator[bool]:
        job = self.job
        started = time.monotonic()
        lease = self._store.acquire(
            job.lineage, job.token_ids, job.stable_tokens, keep=job.keep, ahead=job.ahead
        )
        self._lease = lease
        try:
            if job.listener is not None:
                job.listener.started(lease.lookup)
            self.usage = _prompt_usage(job, lease)
            self._timings.queue.FromMilliseconds(_ms(started - job.created))
            self._timings.render.FromMilliseconds(_ms(job.render_seconds))
            diagnostics = job.listener.diagnostics if job.listener is not None else None
            started_event = pb.Started(usage=self.usage, diagnostics=diagnostics)
            job.emit(pb.GenerateResponse(started=started_event))
            yield True
            yield from self._prefill(lease)
            self._store.keep_prefix(lease)
            prefilled = time.monotonic()
            self._timings.prefill.FromMilliseconds(_ms(prefilled - started))
            if job.max_tokens == 0:
                self._finish(pb.STOP_REASON_MAX_TOKENS)
                return
            yield from self._decode(lease, prefilled)
        finally:
            self._release(lease)

    def _explain(self) -> None:
        if self.job.listener is not None:
            self.job.listener.explain()

    def _release(self, lease: Lease) -> None:
        self._explain()
        tip = self._store.release(lease)
        if tip is not None and self.job.listener is not None:
            self.job.listener.kept(self.job.lineage, lease.live.tokens.ids, tip)

    def _prefill(self, lease: Lease) -> Generator[bool]:
        """Computes the prompt except its last token, with which decoding begins."""
        ids, live = self.job.token_ids, lease.live
        end = len(ids) - 1
        live.reserve(end - len(live) + RESPONSE_TOKENS)
        self._emit_progress(len(live))
        marks = sorted((*self.job.marks, self.job.prompt_tokens - 1))
        for stop in _stops(marks, len(live), end) if live.needs_checkpoints else [end]:
            while len(live) < stop:
                chunk = ids[len(live) : min(stop, len(live) + self._chunk_tokens(len(live)))]
                with self._timed(len(chunk)):
                    prefill(self._model, live.layers, chunk)
                live.tokens.extend(chunk)
                self._emit_progress(len(live))
                yield True
            live.checkpoint(keep=(self.job.stable_tokens,))
        live.reserve(RESPONSE_TOKENS)

    def _decode(self, lease: Lease, started: float) -> Generator[bool]:
        job, live = self.job, lease.live
        blocks = job.new_blocks()
        self.decoding = decoding = Decoding(self._model, live, job.sampler, self._drafter())
        tokens = self._answer_tokens(decoding)
        try:
            reason = yield from self._push_all(tokens, blocks)
        finally:
            tokens.close()
            evaluate(live.layers)
            self.decoded = decoding.counts
        cut = reason == pb.STOP_REASON_MAX_TOKENS
        self._emit_all(partial(blocks.finish, cut=cut))
        if job.answered and reason == pb.STOP_REASON_END_TURN and blocks.is_verbatim:
            # The last token of a replayed answer is not in the cache.
            whole = max(live.tokens.ids, job.token_ids, key=len)
            job.answered(whole[job.prompt_tokens :].copy())
        self._timings.decode.FromMilliseconds(_ms(time.monotonic() - started))
        if blocks.has_tool_use and not cut:
            reason = pb.STOP_REASON_TOOL_USE
        elif cut and job.window_limited and blocks.loop is None:
            reason = pb.STOP_REASON_MODEL_CONTEXT_WINDOW_EXCEEDED
        self._finish(reason, blocks.stop_sequence or "")

    def _push_all(
        self, tokens: Iterator[int | None], blocks: Blocks
    ) -> Generator[bool, None, pb.StopReason]:
        """Turns tokens into events until the answer ends; returns the reason."""
        turn_tokens = 0
        for token in tokens:
            if token is not None:
                turn_tokens += 1
                if (reason := self._push(token, blocks)) is not None:
                    return reason
                continue
            # Until the first token, turns are short, so that the answer soon shares passes.
            is_end = turn_tokens >= self._decode_steps or self.usage.output_tokens < 2
            if is_end and self.usage.output_tokens:
                turn_tokens = 0
                self._emit_unsent()
                # The first tokens are on their way, and the next one is being computed.
                self._explain()
            yield is_end
        return pb.STOP_REASON_MAX_TOKENS

    def _push(self, token: int, blocks: Blocks) -> pb.StopReason | None:
        """Sends the events of one token; returns why the answer ends with it, if it does."""
        if not self.usage.output_tokens:
            self._timings.first_token.FromMilliseconds(_ms(time.monotonic() - self.job.created))
        self.usage.output_tokens += 1
        if token in self._eos:
            return pb.STOP_REASON_END_TURN
        self._emit_all(partial(blocks.push, token))
        if blocks.stop_sequence is not None:
            return pb.STOP_REASON_STOP_SEQUENCE
        if blocks.loop is None:
            return None
        # Half a call is of no use, so it ends like one that `max_tokens` cuts off.
        return pb.STOP_REASON_MAX_TOKENS if blocks.is_in_call else pb.STOP_REASON_END_TURN

    def _answer_tokens(self, decoding: Decoding) -> Generator[int | None]:
        """The tokens of the answer: first those of an earlier worker, then new ones.

        None comes where the answer may pause.
        """
        job, ids = self.job, self.job.token_ids
        for token in ids[job.prompt_tokens :]:
            yield int(token)
            yield None
        left = job.max_tokens - job.generated_tokens
        if left <= 0:
            return
        with closing(decoding.tokens(int(ids[-1]), left)) as tokens:
            for new in tokens:
                if new is not None:
                    self._unsent.append(new)
                yield new

    def _drafter(self) -> Drafter | None:
        if not self._drafts.most_tokens:
            return None
        return Drafter(self._drafts, self._pass_costs, self.job.guide)

    def _emit_all(self, events: Callable[[], Sequence[pb.GenerateResponse]]) -> None:
        try:
            for event in events():
                if self.job.listener is not None:
                    self.job.listener.emitted(event)
                self._emit(event)
        except Exception as error:
            raise DecodingError(f"{type(error).__name__}: {error}") from error

    def _emit_unsent(self) -> None:
        """Sends the tokens that have no events yet, such as those of a buffered call."""
        if self._unsent:
            self._emit(pb.GenerateResponse())

    def _emit(self, response: pb.GenerateResponse) -> None:
        response.token_ids.extend(self._unsent)
        self._unsent.clear()
        self.job.emit(response)

    def _emit_progress(self, tokens: int) -> None:
        progress = pb.Progress(prefilled_tokens=tokens, prompt_tokens=len(self.job.token_ids))
        self._emit(pb.GenerateResponse(progress=progress))

    def _finish(self, reason: pb.StopReason, stopped_by: str = "") -> None:
        listener = self.job.listener
        self._explain()
        self._emit(
            pb.GenerateResponse(
                finished=pb.Finished(
                    stop_reason=reason,
                    stop_sequence=stopped_by,
                    usage=self.usage,
                    timings=self._timings,
                    decoded=self.decoded,
                    reuse_cause=listener.cause if listener else pb.REUSE_CAUSE_UNSPECIFIED,
                )
            )
        )


def _prompt_usage(job: Job, lease: Lease) -> pb.Usage:
    """Splits the prompt as the API counts it; the last token is computed and kept by decoding."""
    reused = min(lease.lookup.reused, job.prompt_tokens - 1)
    computed = job.prompt_tokens - reused
    kept = computed - 1 if job.keep else 0
    return pb.Usage(
        input_tokens=computed - kept,
        cache_read_tokens=reused,
        cache_creation_tokens=kept,
        disk_read_tokens=min(lease.lookup.disk_tokens, reused),
    )


def _stops(marks: Sequence[int], begin: int, end: int) -> list[int]:
    """The lengths at which prefill pauses for a checkpoint: the remaining marks, and the end."""
    return [mark for mark in marks if begin < mark < end] + [end]


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
