"""The store keeps each distinct token once, prunes the right segments, computes nothing twice."""

import gc
import random
from pathlib import Path

import mlx.core as mx
import pytest

from anyclaude.mlx.kv.operations import Selection, Tier, prune
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv.tree import PrefixTree
from anyclaude.mlx.kv_disk import DiskTier
from tests.figures import FIGURES, RecordProperty
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import ANSWER_TOKENS, Bench, bench, fresh, same, words

STABLE = 600
REQUESTS = 500


def shared_prefix(seed: int = 1) -> list[int]:
    return words(random.Random(seed), STABLE)


def conversations(engine: Bench, count: int, own_tokens: int = 40) -> list[list[int]]:
    """Runs sessions s0, s1, ... that share a stable prefix; returns their prompts."""
    rng = random.Random(2)
    prompts = [shared_prefix() + words(rng, own_tokens) for _ in range(count)]
    for number, prompt in enumerate(prompts):
        engine.start(prompt, f"s{number}", stable=STABLE).answer()
    return prompts


def names(store: KVStore) -> set[str]:
    return {lineage.key.session_id for lineage in store.lineages()}


def stable_prefixes(store: KVStore) -> int:
    return sum(bool(node.stable_digest) for node in store.tree.nodes())


def test_idle_sessions_share_what_they_have_in_common(record_property: RecordProperty) -> None:
    """16 idle sessions use the bytes of their distinct tokens, as counted and as MLX reports."""
    shared, own, sessions, rng = 18_490, 500, 16, random.Random(1)
    # One layer with one wide head, so that a prompt of true length takes seconds; and wide, since
    # MLX lets a small copy share the buffer it was cut from.
    model = tiny.build(tiny.Family.WIDE, num_hidden_layers=1, num_attention_heads=1)
    engine = bench(tiny.Family.WIDE, live_idle_seconds=-1, model=model)
    gc.collect()
    before = mx.get_active_memory()
    prefix = words(rng, shared)
    for number in range(sessions):
        engine.start(prefix + words(rng, own), f"s{number}", stable=shared).answer()
    store = engine.engine.store
    gc.collect()
    distinct = shared + sessions * (own + ANSWER_TOKENS)
    # Sessions may begin with the same word by chance.
    kept = sum(len(node.tokens) for node in store.tree.nodes())
    assert distinct - sessions <= kept <= distinct
    used = mx.get_active_memory() - before
    needed = distinct * store.budget.bytes_per_token
    record_property(
        FIGURES,
        f"{sessions} idle sessions: {used} bytes by MLX, {store.budget.nbytes} by the ledger, "
        f"{needed:.0f} for distinct tokens",
    )
    assert used <= 1.15 * needed
    assert used == pytest.approx(store.budget.nbytes, rel=0.02)


def test_a_second_conversation_computes_only_its_own_words() -> None:
    """A new session reuses the stable prefix of the first."""
    engine = bench(tiny.Family.DENSE)
    conversations(engine, 1)
    other = shared_prefix() + words(random.Random(9), 30)
    assert engine.start(other, "other", stable=STABLE).answer().reused == STABLE


def test_a_branch_that_was_left_is_found_again() -> None:
    """After an edit far back, returning to the old history reuses all of it."""
    engine, rng = bench(tiny.Family.DENSE), random.Random(3)
    (prompt,) = conversations(engine, 1, own_tokens=200)
    edited = prompt[: STABLE + 20] + words(rng, 50)
    engine.start(edited, "s0", stable=STABLE).answer()
    longer = prompt + words(rng, 10)
    answer = engine.start(longer, "s0", stable=STABLE).answer()
    assert answer.reused >= len(prompt)
    assert same(answer, fresh(tiny.Family.DENSE, longer))


def test_an_identical_request_waits_for_the_running_one() -> None:
    """Of two identical requests at once, the second computes one token."""
    engine = bench(tiny.Family.DENSE)
    prompt = shared_prefix() + words(random.Random(4), 30)
    first = engine.start(prompt, "a", stable=STABLE)
    twin = engine.start(prompt, "a", stable=STABLE)
    assert twin.answer().reused == len(prompt) - 1
    assert same(first.answer(), twin.answer())


def test_a_cancelled_prefill_is_found_by_the_retry() -> None:
    """A retry reuses what was prefilled before the client left."""
    engine = bench(tiny.Family.DENSE)
    prompt = shared_prefix()
    engine.start(prompt, "a").cancel_after(5)
    assert engine.start(prompt, "a").answer().reused >= 3 * 48


def test_pruning_a_session_keeps_the_prefix_for_the_next() -> None:
    """Pruning a session removes its own tokens; tools and instructions stay."""
    engine = bench(tiny.Family.DENSE)
    conversations(engine, 2)
    store = engine.engine.store
    prune(store, Selection(session_id="s0"))
    assert names(store) == {"s1"}
    prune(store, Selection(session_id="s1"))
    assert names(store) == set()
    assert stable_prefixes(store) == 1
    assert sum(len(node.tokens) for node in store.tree.nodes()) == STABLE


def test_pruning_all_of_a_session_removes_its_prefix_with_the_last_user() -> None:
    """With `all`, the prefix stays as long as another session uses it, and goes with that one."""
    engine = bench(tiny.Family.DENSE)
    conversations(engine, 2)
    store = engine.engine.store
    prune(store, Selection(session_id="s0", all=True))
    assert (names(store), stable_prefixes(store)) == ({"s1"}, 1)
    prune(store, Selection(session_id="s1", all=True))
    assert (names(store), list(store.tree.nodes())) == (set(), [])


def test_a_dry_run_changes_nothing_and_announces_the_bytes() -> None:
    """A dry run returns the bytes that the prune then frees, and changes nothing."""
    engine = bench(tiny.Family.DENSE, live_idle_seconds=-1)
    conversations(engine, 3)
    store = engine.engine.store
    before = store.budget.nbytes
    planned = sum(
        removal.freed_bytes for removal in prune(store, Selection(all=True), dry_run=True)
    )
    assert store.budget.nbytes == before
    prune(store, Selection(all=True))
    assert planned == before - store.budget.nbytes
    assert store.budget.nbytes == 0


def test_a_byte_target_takes_the_oldest_first_and_no_stable_prefix() -> None:
    """Pruning to a size removes conversations by age; the prefix goes only if all is selected."""
    engine = bench(tiny.Family.DENSE, live_idle_seconds=-1)
    conversations(engine, 4)
    store = engine.engine.store
    one = int((40 + ANSWER_TOKENS) * store.budget.bytes_per_token)
    prune(store, Selection(to_bytes=store.budget.nbytes - one))
    assert names(store) == {"s1", "s2", "s3"}
    prune(store, Selection(to_bytes=int((STABLE + 1) * store.budget.bytes_per_token)))
    assert names(store) == set()
    assert stable_prefixes(store) == 1
    prune(store, Selection(to_bytes=0))
    assert stable_prefixes(store) == 1
    prune(store, Selection(to_bytes=0, all=True))
    assert store.budget.nbytes == 0


def test_a_byte_target_takes_no_more_than_it_needs() -> None:
    """Of one long conversation only the end is removed, and the rest is reused by its next turn."""
    engine = bench(tiny.Family.DENSE, live_idle_seconds=-1)
    conversations(engine, 1)
    (lineage,) = engine.engine.store.lineages()
    assert lineage.tip is not None
    first = lineage.tip.token_ids().tolist()
    longer = first + words(random.Random(7), 300)
    engine.start(longer, "s0", stable=STABLE).answer()
    store = engine.engine.store
    store.lineages()[0].live = None
    prune(store, Selection(to_bytes=store.budget.nbytes - 1))
    assert engine.start(longer, "s0", stable=STABLE).answer().reused >= len(first)


def test_a_byte_target_leaves_what_frees_nothing(tmp_path: Path) -> None:
    """A conversation that is only on disk is no help for the memory, so it stays."""
    disk = DiskTier(tmp_path, "model", 1 << 30)
    engine = bench(tiny.Family.DENSE, disk=disk, live_idle_seconds=-1)
    conversations(engine, 3)
    disk.flush()
    store = engine.engine.store
    prune(store, Selection(session_id="s0", tier=Tier.MEMORY))
    before = store.budget.nbytes
    prune(store, Selection(to_bytes=before - 1))
    assert names(store) == {"s0", "s2"}
    disk.close()


def test_age_selects_by_last_use() -> None:
    """Pruning by age spares caches that were used since."""
    now = [1000.0]
    engine = bench(tiny.Family.DENSE, clock=lambda: now[0])
    conversations(engine, 1)
    now[0] += 100
    other = shared_prefix() + words(random.Random(5), 20)
    engine.start(other, "young", stable=STABLE).answer()
    prune(engine.engine.store, Selection(older_than_seconds=50), clock=lambda: now[0])
    assert names(engine.engine.store) == {"young"}


def test_a_running_conversation_is_never_pruned() -> None:
    """Pruning everything while a request runs leaves its answer exact."""
    engine = bench(tiny.Family.DENSE)
    prompt = shared_prefix() + words(random.Random(6), 20)
    request = engine.start(prompt, "a", stable=STABLE)
    for _ in range(6):
        engine.engine.step()
    prune(engine.engine.store, Selection(all=True))
    assert names(engine.engine.store) == {"a"}
    assert same(request.answer(), fresh(tiny.Family.DENSE, prompt))


def test_no_condition_selects_nothing() -> None:
    """A prune without conditions removes nothing."""
    engine = bench(tiny.Family.DENSE)
    conversations(engine, 1)
    assert prune(engine.engine.store, Selection()) == []


@pytest.mark.parametrize("family", tiny.Family)
def test_a_small_edit_near_the_end_recomputes_the_last_message(family: tiny.Family) -> None:
    """A change in the last message recomputes at most that message."""
    engine, rng = bench(family), random.Random(8)
    prompt = shared_prefix() + words(rng, 200)
    engine.start(prompt, "a", stable=STABLE).answer()
    edited = prompt[:-5] + words(rng, 5)
    assert engine.start(edited, "a", stable=STABLE).answer().reused >= len(prompt) - 60


def test_eviction_counts_all_bytes_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evicting many segments counts all bytes only a few times, not once per segment."""
    engine = bench(tiny.Family.DENSE, live_idle_seconds=-1)
    conversations(engine, 40)
    store, counts = engine.engine.store, 0
    whole = PrefixTree.nbytes.fget
    assert whole is not None

    def counted(tree: PrefixTree) -> int:
        nonlocal counts
        counts += 1
        return int(whole(tree))

    monkeypatch.setattr(PrefixTree, "nbytes", property(counted))
    assert store.budget.fit(store.budget.limit_bytes)
    assert store.budget.evictions > 40
    assert store.budget.nbytes == 0
    assert counts <= 6


def test_the_bytes_of_a_segment_follow_what_it_holds() -> None:
    """A segment has fewer bytes without its states, and none after it leaves memory."""
    engine = bench(tiny.Family.SLIDING)
    conversations(engine, 1)
    (node, *_) = engine.engine.store.tree.nodes()
    before = node.nbytes
    assert before > 0
    node.drop_states()
    assert node.nbytes <= before
    node.content = None
    assert node.nbytes == 0


@pytest.mark.slow(15)
def test_the_byte_limit_holds_at_every_moment(record_property: RecordProperty) -> None:
    """Under random load, running requests included, memory never exceeds the limit."""
    prefix, probe = shared_prefix()[: STABLE // 2], bench(tiny.Family.WIDE)
    probe.start(words(random.Random(2), 400), "probe", stable=len(prefix)).answer()
    limit = 5 * probe.engine.store.budget.nbytes
    gc.collect()
    bytes_per_token = probe.engine.store.budget.bytes_per_token
    engine, rng = bench(tiny.Family.WIDE, limit, bytes_per_token=bytes_per_token), random.Random(12)
    store, weights = engine.engine.store, mx.get_active_memory()
    running, peak = [], 0
    for number in range(REQUESTS):
        prompt = prefix + words(rng, rng.randrange(5, 150))
        running.append(engine.start(prompt, f"s{number % 20}", stable=len(prefix)))
        for _ in range(rng.randrange(1, 30)):
            if running[-1].done:
                break
            engine.engine.step()
            peak = max(peak, store.budget.nbytes, mx.get_active_memory() - weights)
    for request in running:
        request.answer()
    record_property(
        FIGURES,
        f"{REQUESTS} requests at the limit: peak {peak} of {limit} bytes, "
        f"{store.budget.evictions} evictions",
    )
    assert store.budget.evictions > 0
    assert peak <= limit


@pytest.mark.slow(5)
@pytest.mark.parametrize("family", tiny.Family)
def test_a_main_conversation_computes_its_new_tokens_only(family: tiny.Family) -> None:
    """In 30 turns beside subagents and title calls, in little memory, nothing is computed twice."""
    turns, stable, rng = 30, 200, random.Random(14)
    main = words(rng, stable)
    agents = [words(rng, 80) for _ in range(3)]
    probe = bench(family)
    probe.start(words(rng, stable + turns * 18), "probe", stable=stable).answer()
    known = probe.engine.store.budget
    engine = bench(family, 4 * known.nbytes, bytes_per_token=known.bytes_per_token)
    seen = 0
    for number in range(turns):
        main += words(rng, rng.randrange(1, 20))
        request = engine.start(main, "a", stable=stable)
        others = [
            engine.start(prompt, "a", stable=80, agent=f"agent{index}")
            for index, prompt in enumerate(agents)
        ]
        title = engine.start(words(rng, 60), "a", stable=40, keep=False)
        answer = request.answer()
        computed = len(main) - answer.reused
        assert number == 0 or computed <= len(main) - seen + 16, f"turn {number}"
        for index, other in enumerate(others):
            agents[index] = agents[index] + other.answer().tokens + words(rng, 25)
        title.answer()
        main += answer.tokens
        seen = len(main)
    assert engine.engine.store.budget.evictions > 0
