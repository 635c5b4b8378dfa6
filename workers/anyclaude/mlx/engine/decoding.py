"""Decoding one answer: one token in each pass of the model, or drafts that one pass verifies.

A draft is a guess of the next tokens (`drafts`). A pass over the last token and its drafts computes
the probabilities behind each of them, and the sampler then chooses token after token as it would
without drafts. A draft that it chooses too is accepted; at the first difference, the sampler's
choice is the next token and the rest of the drafts is dropped. So drafts change how many tokens a
pass gives, and never which tokens: the sampler sees the same probabilities in the same order, and
draws as many random numbers.

Without drafts a step runs ahead: the next pass is submitted before the token is read. Such a pass
may be shared with other answers (`batch`). Then the engine asks for the token that it needs, and
hands over the logits behind it, before it lets the answer go on.

Invariant: between two passes, and once the iterator is closed, the cache holds exactly its tokens,
each of which was returned. Within a pass it may also hold drafts that are not accepted yet.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Final

import mlx.core as mx
from anyclaude.mlx.adapter import LanguageModel, Sampler, evaluate, read_token
from anyclaude.mlx.engine.drafts import Drafter, pass_clock
from anyclaude.mlx.kv.live import LiveCache, SavePoint
from anyclaude.worker.v1 import worker_pb2 as pb

# MLX's pool of freed buffers is emptied after so many passes, as mlx-lm does.
_POOL_PASSES: Final = 256


class Decoding:
    """The tokens of one answer. Used on the MLX thread only.

    Args:
        live: holds the prompt without its last token.
        drafter: proposes drafts; None to decode without any.
        clock: seconds; by default those that a pass costs. On the CPU that is CPU time, which the
            load of other programs does not change.
    """

    def __init__(
        self,
        model: LanguageModel,
        live: LiveCache,
        sampler: Sampler,
        drafter: Drafter | None = None,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.live = live
        self._model = model
        self._sampler = sampler
        self._drafter = drafter
        self._clock = clock or pass_clock()
        # The latest token that was sampled. It is not in the cache, and may not be computed yet.
        self._next = mx.array([0])
        self._left = 0
        # Of the next pass, once it was asked for them.
        self._planned: Sequence[int] | None = None
        # The next token, once a shared pass has computed it and sampled the one behind it.
        self._computed: mx.array | None = None
        self.passes = self._drafted = self._accepted = 0

    @property
    def counts(self) -> pb.Decoded:
        return pb.Decoded(
            passes=self.passes, drafted_tokens=self._drafted, accepted_tokens=self._accepted
        )

    def can_share(self, token_cost: float) -> bool:
        """Whether the next pass can be shared: one of a single token, without drafts.

        Args:
            token_cost: what a token costs in a shared pass, as a multiple of a pass of its own.
        """
        if not self._left:
            return False
        self._planned = self._drafts(token_cost)
        return not self._planned

    @property
    def next_token(self) -> mx.array:
        return self._next

    def receive(self, logprobs: mx.array) -> None:
        """Takes what a shared pass computed behind the next token, of shape (1, vocabulary)."""
        self.passes += 1
        self._computed = self._next
        if self._left > 1:
            self._next = self._sampler(logprobs)

    def tokens(self, last_token: int, max_tokens: int) -> Generator[int | None]:
        """Generates from the prompt's last token; None before each pass, and at the end.

        Each token is in the cache by the time it is returned. After a None the answer may pause
        for as long as other requests run.
        """
        self._next = mx.array([last_token])
        self._left = 1 + max_tokens
        yield None
        while self._left > 0:
            drafts = self._drafts() if self._planned is None else self._planned
            self._planned = None
            step = self._verified(drafts) if drafts else self._single(is_last=self._left == 1)
            with closing(step):
                for token in step:
                    is_answer = self._left <= max_tokens
                    if is_answer:
                        yield token
                    self._left -= 1
                    if is_answer and self._drafter is not None:
                        self._drafter.observe(self.live.tokens.ids)
            if self.passes % _POOL_PASSES == 0:
                mx.clear_cache()
            yield None

    def _drafts(self, token_cost: float = 1.0) -> Sequence[int]:
        most = self._left - 1
        if self._drafter is None or not most or not self._drafter.is_promising:
            return ()
        last = read_token(self._next)
        return self._drafter.drafts(self.live.tokens.ids, last, most, token_cost)

    def _single(self, *, is_last: bool) -> Generator[int]:
        """Runs the next token through the model, and samples the one behind it."""
        began, token, computed = self._clock(), self._next, self._computed
        if computed is None:
            logits = self._forward(token)
            if not is_last:
                self._next = self._sampled(logits, 0)
                mx.async_eval(self._next)  # type: ignore[no-untyped-call]
        else:
            token, self._computed = computed, None
        read = read_token(token)
        self.live.tokens.extend((read,))
        if computed is None and self._drafter is not None:
            self._drafter.costs.add(1, self._clock() - began)
        yield read

    def _verified(self, drafts: Sequence[int]) -> Generator[int]:
        """Runs the next token and its drafts through the model; yields those that are accepted."""
        assert self._drafter is not None
        began, paused = self._clock(), 0.0
        token, saved = read_token(self._next), self.live.save_point()
        logits = self._forward(mx.array([token, *drafts]))
        mx.async_eval(logits)  # type: ignore[no-untyped-call]
        self._drafted += len(drafts)
        accepted = 0
        try:
            self.live.tokens.extend((token,))
            moment = self._clock()
            yield token
            paused += self._clock() - moment
            for draft in drafts:
                self._next = self._sampled(logits, accepted)
                if read_token(self._next) != draft:
                    break
                accepted += 1
                self.live.tokens.extend((draft,))
                moment = self._clock()
                yield draft
                paused += self._clock() - moment
            else:
                self._next = self._sampled(logits, accepted)
                mx.async_eval(self._next)  # type: ignore[no-untyped-call]
        finally:
            self._accepted += accepted
            self._settle(saved, len(drafts) - accepted)
        self._drafter.costs.add(1 + len(drafts), self._clock() - began - paused)

    def _settle(self, saved: SavePoint, surplus: int) -> None:
        """Takes `surplus` tokens back out of the cache."""
        if not surplus:
            return
        again = self.live.roll_back(saved, surplus)
        if len(again):
            self._model(mx.array(again)[None], cache=self.live.layers)
            evaluate(self.live.layers)

    def _forward(self, token_ids: mx.array) -> mx.array:
        self.passes += 1
        return self._model(token_ids[None], cache=self.live.layers)

    def _sampled(self, logits: mx.array, row: int) -> mx.array:
        return self._sampler(log_probabilities(logits[:, row]))


def log_probabilities(logits: mx.array) -> mx.array:
    """Of logits of shape (answers, vocabulary), each answer for itself."""
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)
