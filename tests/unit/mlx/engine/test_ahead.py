"""Computing ahead: what a next question begins with is computed while the engine has no request."""

import random
from collections.abc import Iterator
from itertools import count

import pytest

from anyclaude.mlx.engine.chunks import ChunkSizes
from anyclaude.mlx.kv.operations import Selection, pin, prune
from anyclaude.mlx.tokens import token_array
from anyclaude.runtime.settings import MlxSettings
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import Bench, Request, bench, fresh, same, words

STABLE = 60
CHUNK = 50
_FAMILIES = [family for family in tiny.Family if family is not tiny.Family.WIDE]


def _engine(family: tiny.Family = tiny.Family.DENSE, limit: int = 1 << 30) -> Bench:
    # Every reading of the clock is a second later, so that no two uses are at the same time.
    clock: Iterator[int] = count(1_000_000)
    sizes = ChunkSizes(MlxSettings(prefill_chunk_tokens=CHUNK))
    return bench(family, limit, clock=lambda: float(next(clock)), chunks=sizes)


class _Talk:
    """A conversation whose template writes the history anew at each question."""

    def __init__(self, seed: int = 1, session: str = "a") -> None:
        rng = random.Random(seed)
        self.session = session
        self.stable = words(random.Random(0), STABLE)
        self.first = self.stable + words(rng, 300)
        self.rewritten = self.stable + words(rng, 240)
        self.question = self.rewritten + words(rng, 12)

    def answered(self, it: Bench) -> None:
        it.start(self.first, self.session, STABLE).answer()

    def ahead(self, it: Bench) -> Request:
        # The last token of a prompt is not computed.
        return it.start([*self.rewritten, 0], self.session, STABLE, ahead=True)

    def ask(self, it: Bench) -> Request:
        return it.start(self.question, self.session, STABLE)


def _run(it: Bench, request: Request) -> None:
    while not request.done and not _failed(request):
        it.engine.step()


def _failed(request: Request) -> bool:
    return bool(request.events) and request.events[-1].HasField("failed")


@pytest.mark.parametrize("family", _FAMILIES)
def test_the_next_question_computes_its_own_words(family: tiny.Family) -> None:
    """After computing ahead, a question computes its words alone, and its answer is exact."""
    it, talk = _engine(family), _Talk()
    talk.answered(it)
    (before,) = it.engine.store.lineages()
    tip, hits, used = before.tip, before.hits, before.last_use
    _run(it, ahead := talk.ahead(it))
    assert ahead.done
    assert (before.tip, before.hits, before.last_use) == (tip, hits, used)

    answer = talk.ask(it).answer()
    assert answer.reused == len(talk.rewritten)
    assert same(answer, fresh(family, talk.question))
    status = it.engine.status
    assert status.ahead_computed_tokens == status.ahead_used_tokens > 200
    assert status.ahead_given_up == 0


@pytest.mark.parametrize("family", _FAMILIES)
@pytest.mark.parametrize("same_conversation", [True, False])
def test_a_request_in_the_middle_waits_for_one_chunk(
    family: tiny.Family, same_conversation: bool
) -> None:
    """A request that comes meanwhile starts in the next turn, and both answers are exact."""
    it, talk, other = _engine(family), _Talk(), _Talk(2, "b")
    talk.answered(it)
    ahead = talk.ahead(it)
    while sum(event.HasField("progress") for event in ahead.events) < 2:
        it.engine.step()
    request = (talk if same_conversation else other).ask(it)
    it.engine.step()
    assert _failed(ahead)
    assert not ahead.events[-1].failed.HasField("should_retry")
    assert request.events[0].HasField("started")

    asked = (talk if same_conversation else other).question
    assert same(request.answer(), fresh(family, asked))
    assert it.engine.status.ahead_given_up == 1
    if not same_conversation:
        # It continues where it was given up.
        _run(it, again := talk.ahead(it))
        assert again.done
        assert again.events[0].started.usage.cache_read_tokens > STABLE
        answer = talk.ask(it).answer()
        assert answer.reused == len(talk.rewritten)
        assert same(answer, fresh(family, talk.question))
        status = it.engine.status
        assert status.ahead_computed_tokens == status.ahead_used_tokens


def test_it_waits_while_a_request_runs() -> None:
    """While a request runs, computing ahead is not begun, and may be tried again."""
    it, talk = _engine(), _Talk()
    talk.answered(it)
    running = it.start(words(random.Random(9), 200), "b")
    it.engine.step()
    ahead = talk.ahead(it)
    it.engine.step()
    assert _failed(ahead)
    assert not ahead.events[-1].failed.HasField("should_retry")
    running.answer()


def test_stopping_does_not_wait_for_it() -> None:
    """A stop with a long grace ends at once, although computing ahead has begun."""
    it, talk = _engine(), _Talk()
    talk.answered(it)
    ahead = talk.ahead(it)
    it.engine.step()
    it.engine.stop(600.0)
    it.engine.run()
    assert _failed(ahead)


def test_it_is_not_begun_for_little() -> None:
    """Where a next question would compute at most 64 tokens anyway, nothing is computed."""
    it, talk = _engine(), _Talk()
    talk.answered(it)
    extended = it.start([*talk.first, *words(random.Random(3), 50)], "a", STABLE, ahead=True)
    it.engine.step()
    assert extended.events[-1].failed.should_retry is False
    assert extended.events[-1].failed.HasField("should_retry")
    assert it.engine.status.ahead_computed_tokens == 0


def test_a_removed_conversation_is_not_computed_again() -> None:
    """After a prune of the session, nothing of it is computed ahead, and nothing of it is left."""
    it, talk = _engine(), _Talk()
    talk.answered(it)
    _run(it, talk.ahead(it))
    store = it.engine.store
    prune(store, Selection(session_id="a"))
    assert [node.end for node in store.tree.nodes()] == [STABLE]

    again = talk.ahead(it)
    it.engine.step()
    assert again.events[-1].failed.HasField("should_retry")
    assert [node.end for node in store.tree.nodes()] == [STABLE]


def test_other_commands_see_no_running_conversation() -> None:
    """A prune in the middle removes the conversation that is being computed ahead."""
    it, talk = _engine(), _Talk()
    talk.answered(it)
    ahead = talk.ahead(it)
    it.engine.step()
    it.engine.step()
    pruned = it.engine.call(lambda: prune(it.engine.store, Selection(session_id="a")))
    it.engine.step()
    assert _failed(ahead)
    assert pruned.result()
    assert not it.engine.store.lineages()


def test_pins_and_checks_work_beside_it() -> None:
    """A pinned conversation stays pinned, and every segment is what a fresh run gives."""
    it, talk = _engine(), _Talk()
    talk.answered(it)
    store = it.engine.store
    (lineage,) = store.lineages()
    assert lineage.tip is not None
    pin(store, lineage.tip, pinned=True)
    _run(it, talk.ahead(it))
    assert lineage.tip.pinned
    assert lineage.ahead is not None
    assert not lineage.ahead.node.pinned

    check = it.engine.verification(0)
    while check.step():
        pass
    assert check.findings.segments == len(list(store.tree.nodes()))
    assert not check.findings.wrong


@pytest.mark.parametrize("other_is_later", [True, False])
def test_it_evicts_nothing_that_was_used_later(other_is_later: bool) -> None:
    """Without room, it evicts what was used before the answer, or else computes nothing."""
    talk, other = _Talk(), _Talk(2, "b")
    talks = (talk, other) if other_is_later else (other, talk)
    probe = _engine()
    for each in talks:
        each.answered(probe)
    store = probe.engine.store
    (key,) = (line.key for line in store.lineages() if line.key.session_id == talk.session)
    needed = store.budget.needed_bytes(key, token_array([*talk.rewritten, 0]))

    it = _engine(limit=store.budget.nbytes + needed - 1)
    it.engine.store.budget.bytes_per_token = store.budget.bytes_per_token
    for each in talks:
        each.answered(it)
    budget, before = it.engine.store.budget, it.engine.store.budget.nbytes
    _run(it, ahead := talk.ahead(it))
    assert ahead.done is not other_is_later
    if other_is_later:
        assert (budget.nbytes, budget.evictions) == (before, 0)
        assert all(line.live is not None for line in it.engine.store.lineages())
    else:
        assert budget.nbytes <= budget.limit_bytes
        assert talk.ask(it).answer().reused == len(talk.rewritten)
