"""The caches as messages of `anyclaude.cache.v1`. Every function runs on the MLX thread."""

from collections.abc import Mapping, Sequence
from typing import Final

from anyclaude.cache.v1 import cache_pb2 as pb
from anyclaude.mlx.kv.lineage import Lineage
from anyclaude.mlx.kv.operations import (
    Removal,
    Selection,
    Tier,
    pin,
    pinned_bytes,
    prune,
    used_bytes,
)
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv.tree import Node
from anyclaude.mlx.kv_disk import DiskTier
from anyclaude.mlx.prompt.splice import SplicedTurns

_TIERS: Final[Mapping[int, Tier]] = {
    pb.CACHE_TIER_UNSPECIFIED: Tier.BOTH,
    pb.CACHE_TIER_MEMORY: Tier.MEMORY,
    pb.CACHE_TIER_DISK: Tier.DISK,
}


class UnknownCacheError(Exception):
    """No cache or stored model has the name that was given."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def list_caches(store: KVStore) -> list[pb.Cache]:
    """Every conversation and every kept prefix, by name."""
    lineages = [_lineage(lineage) for lineage in store.lineages()]
    prefixes = [_prefix(node) for node in store.tree.nodes() if node.stable_digest]
    return sorted([*lineages, *prefixes], key=lambda cache: cache.name)


def stored_models(disk: DiskTier | None) -> list[pb.StoredModel]:
    """Models that have records on disk, the resident one first."""
    models = disk.models() if disk else {}
    return [
        pb.StoredModel(fingerprint=name, records=records, bytes=nbytes, resident=not index)
        for index, (name, (records, nbytes)) in enumerate(models.items())
    ]


def cache_tree(store: KVStore) -> pb.GetCacheTreeResponse:
    """Every segment, parents before children."""
    names: dict[Node, str] = {}
    ends: dict[Node, list[str]] = {}
    for lineage in store.lineages():
        if lineage.tip is not None:
            ends.setdefault(lineage.tip, []).append(lineage.name)
    segments = []
    for node in store.tree.nodes():
        names[node] = node.name
        segment = pb.CacheSegment(
            name=names[node],
            parent=names.get(node.parent, "") if node.parent else "",
            start=node.start,
            tokens=len(node.tokens),
            bytes=node.nbytes,
            disk_bytes=node.stored_bytes,
            on_disk=node.is_stored,
            has_state=node.has_states,
            pinned=node.pinned,
            prefix=f"prefixes/{node.stable_digest}" if node.stable_digest else "",
            lineages=ends.get(node, ()),
            hits=node.hits,
        )
        segment.last_use_time.FromMilliseconds(int(node.last_use * 1000))
        segments.append(segment)
    return pb.GetCacheTreeResponse(segments=segments)


def pin_cache(store: KVStore, name: str, *, pinned: bool) -> pb.PinCacheResponse:
    """Pins or unpins the cache or segment of that name.

    Raises:
        UnknownCacheError: nothing has this name.
        PinnedTooMuchError: pinned caches would exceed their share of the memory limit.
    """
    tip = _tip(store, name)
    if tip is None:
        raise UnknownCacheError(name, f'There is no cache "{name}" to pin.')
    changed = pin(store, tip, pinned=pinned)
    return pb.PinCacheResponse(
        segments=len(changed),
        tokens=sum(len(node.tokens) for node in changed),
        pinned_bytes=pinned_bytes(store),
        pinned_limit_bytes=store.pinned_limit_bytes,
    )


def _tip(store: KVStore, name: str) -> Node | None:
    """The last segment of the cache or segment called `name`."""
    for lineage in store.lineages():
        if lineage.name == name:
            return lineage.tip
    for node in store.tree.nodes():
        if name == node.name or (node.stable_digest and name == f"prefixes/{node.stable_digest}"):
            return node
    return None


def prune_caches(
    store: KVStore, disk: DiskTier | None, wanted: pb.PruneFilter, *, dry_run: bool
) -> pb.PruneCachesResponse:
    """Removes what the filter selects; with `dry_run` only lists it.

    Raises:
        UnknownCacheError: nothing is stored for the model that the filter names.
    """
    if wanted.model and wanted.model != next(iter(disk.models() if disk else {}), ""):
        return _prune_model(disk, wanted.model, dry_run=dry_run)
    chosen = selection(wanted, store)
    before = used_bytes(store, chosen.tier)
    removals = prune(store, chosen, dry_run=True)
    answer = pb.PruneCachesResponse(
        caches=[cache for removal in removals if (cache := _removed(removal))],
        freed_bytes=sum(removal.freed_bytes for removal in removals),
    )
    if not dry_run:
        prune(store, chosen)
        answer.freed_bytes = max(0, before - used_bytes(store, chosen.tier))
    answer.remaining_bytes = max(0, before - answer.freed_bytes)
    return answer


def _prune_model(
    disk: DiskTier | None, fingerprint: str, *, dry_run: bool
) -> pb.PruneCachesResponse:
    """Removes the records of a model that is not loaded now."""
    models = disk.models() if disk else {}
    if disk is None or fingerprint not in models:
        raise UnknownCacheError(fingerprint, f'Nothing is stored of a model "{fingerprint}".')
    nbytes = models[fingerprint][1]
    if not dry_run:
        nbytes = disk.remove_model(fingerprint)
    remaining = sum(stored for _, stored in models.values()) - nbytes
    return pb.PruneCachesResponse(freed_bytes=nbytes, remaining_bytes=remaining)


def forget_answers(store: KVStore, spliced: SplicedTurns) -> None:
    """Forgets the answers of conversations whose KV is gone, since repeating them saves nothing."""
    spliced.forget(lambda kept: store.tree.match(kept.token_ids).length < kept.answers[0].tokens)


def selection(wanted: pb.PruneFilter, store: KVStore) -> Selection:
    age = wanted.older_than.ToTimedelta().total_seconds()
    tier = _TIERS[wanted.tier]
    to_bytes = wanted.to_bytes if wanted.HasField("to_bytes") else None
    if wanted.HasField("percent"):
        to_bytes = used_bytes(store, tier) * (100 - wanted.percent) // 100
    return Selection(
        session_id=wanted.session_id or None,
        older_than_seconds=age if wanted.HasField("older_than") else None,
        to_bytes=to_bytes,
        # Every cache in this store belongs to the resident model.
        all=wanted.all or bool(wanted.model),
        pinned=wanted.pinned,
        tier=tier,
    )


def _lineage(lineage: Lineage) -> pb.Cache:
    """The message of a conversation; its bytes are those of segments that no other one uses."""
    own: list[Node] = []
    for node in reversed(lineage.tip.path() if lineage.tip else []):
        if node.stable_digest or len(node.children) > 1:
            break
        own.append(node)
    live = lineage.live.nbytes if lineage.live else 0
    cache = pb.Cache(
        name=lineage.name,
        kind=pb.CACHE_KIND_LINEAGE,
        session_id=lineage.key.session_id,
        agent_id=lineage.key.agent_id,
        tokens=lineage.tokens,
        bytes=live + sum(node.nbytes for node in own),
        hits=lineage.hits,
        in_use=lineage.running > 0,
        checkpoints=sum(bool(node.states) for node in own),
        pinned=lineage.tip is not None and lineage.tip.pinned,
        disk_bytes=_stored(own),
    )
    _set_times(cache, lineage.create_time, lineage.last_use)
    return cache


def _prefix(node: Node) -> pb.Cache:
    cache = pb.Cache(
        name=f"prefixes/{node.stable_digest}",
        kind=pb.CACHE_KIND_PREFIX,
        tokens=node.end,
        bytes=sum(part.nbytes for part in node.path()),
        hits=node.hits,
        checkpoints=sum(bool(part.states) for part in node.path()),
        pinned=node.pinned,
        disk_bytes=_stored(node.path()),
    )
    _set_times(cache, node.create_time, node.last_use)
    return cache


def _stored(nodes: Sequence[Node]) -> int:
    return sum(node.stored_bytes for node in nodes)


def _removed(removal: Removal) -> pb.Cache | None:
    if removal.lineage is not None:
        cache = _lineage(removal.lineage)
    elif removal.prefix is not None:
        cache = _prefix(removal.prefix)
    else:
        return None
    cache.bytes = removal.freed_bytes
    return cache


def _set_times(cache: pb.Cache, create_time: float, last_use: float) -> None:
    cache.create_time.FromMilliseconds(int(create_time * 1000))
    cache.last_use_time.FromMilliseconds(int(last_use * 1000))
