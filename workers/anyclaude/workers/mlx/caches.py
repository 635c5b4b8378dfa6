"""The cache verbs of the worker contract, run on the MLX thread."""

from anyclaude.worker.v1 import worker_pb2 as pb
from anyclaude.workers.mlx.kv.lineage import Lineage
from anyclaude.workers.mlx.kv.prune import Removal, Selection
from anyclaude.workers.mlx.kv.store import KVStore
from anyclaude.workers.mlx.kv.tree import Node


def list_caches(store: KVStore) -> pb.ListCachesResponse:
    """Every conversation and every kept prefix."""
    lineages = [_lineage(lineage) for lineage in store.lineages()]
    prefixes = [_prefix(node) for node in store.tree.nodes() if node.stable_digest]
    return pb.ListCachesResponse(caches=[*lineages, *prefixes])


def prune_caches(
    store: KVStore, wanted: pb.PruneFilter, *, dry_run: bool
) -> pb.PruneCachesResponse:
    """Prunes, and says what went; with `dry_run` only says what would."""
    before = store.nbytes
    removals = store.prune(selection(wanted), dry_run=True)
    answer = pb.PruneCachesResponse(
        caches=[cache for removal in removals if (cache := _removed(removal))],
        freed_bytes=sum(removal.freed_bytes for removal in removals),
    )
    if not dry_run:
        store.prune(selection(wanted))
        answer.freed_bytes = max(0, before - store.nbytes)
    answer.remaining_bytes = max(0, before - answer.freed_bytes)
    return answer


def disk_status(store: KVStore) -> pb.DiskStatus | None:
    """The disk tier's state; may be asked from any thread."""
    if store.archive is None:
        return None
    status = store.archive.status()
    return pb.DiskStatus(
        folder=str(status.folder),
        state=f"DISK_STATE_{status.state.name}",
        records=status.records,
        bytes=status.nbytes,
        budget_bytes=status.budget_bytes,
        pending_bytes=status.pending_bytes,
        written_records=status.written,
        loaded_records=status.loaded,
        failed_writes=status.failed_writes,
        skipped_writes=status.skipped_writes,
        quarantined_records=status.quarantined,
        last_error=status.last_error,
    )


def selection(wanted: pb.PruneFilter) -> Selection:
    age = wanted.older_than.ToTimedelta().total_seconds()
    return Selection(
        session_id=wanted.session_id or None,
        older_than_seconds=age if wanted.HasField("older_than") else None,
        to_bytes=wanted.to_bytes if wanted.HasField("to_bytes") else None,
        all=wanted.all,
    )


def _lineage(lineage: Lineage) -> pb.Cache:
    """Bytes are those of the conversation alone: from the last node that others share."""
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
    )
    _set_times(cache, node.create_time, node.last_use)
    return cache


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
