"""What an operator does to the caches: prune and pin. The MLX thread's, like the store."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from anyclaude.mlx.kv.causes import Cause
from anyclaude.mlx.kv.prune import Removal, Selection, Tier, plan
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv.tree import Node


class PinnedTooMuchError(Exception):
    """Pinned caches may not fill the memory that conversations need."""

    def __init__(self, needed_bytes: int, pinned_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"That would pin {needed_bytes} bytes more beside {pinned_bytes}; pinned caches may "
            f"take {limit_bytes} bytes, which is cache.max_pinned_fraction of the memory limit. "
            "Unpin another cache, or raise the setting."
        )


def prune(
    store: KVStore,
    selection: Selection,
    *,
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
) -> list[Removal]:
    """Removes what `selection` takes, or only says what that would be."""
    removals = plan(
        store.tree,
        store.lineages(),
        selection,
        now=clock(),
        held_bytes=store.disk_bytes if selection.tier is Tier.DISK else store.room.nbytes,
    )
    if not dry_run:
        for removal in removals:
            _REMOVERS[selection.tier](store, removal)
    return removals


def pin(store: KVStore, tip: Node, *, pinned: bool) -> list[Node]:
    """Keeps a segment and all that it builds on from eviction, or no longer; returns the changed.

    Unpinning leaves what other pinned segments build on.

    Raises:
        PinnedTooMuchError: pinned segments would take more than they may; nothing is changed.
    """
    changed = _to_pin(store, tip) if pinned else _to_unpin(tip)
    for node in changed:
        node.pinned = pinned
    if store.archive is not None:
        store.archive.pin(changed, pinned=pinned)
    return changed


def pinned_bytes(store: KVStore) -> int:
    """Bytes that pinned segments take in memory when all of them are there."""
    return sum(node.kv_bytes for node in store.tree.nodes() if node.pinned)


def _to_pin(store: KVStore, tip: Node) -> list[Node]:
    changed = [node for node in tip.path() if not node.pinned]
    needed, before = sum(node.kv_bytes for node in changed), pinned_bytes(store)
    if before + needed > store.pinned_limit_bytes:
        raise PinnedTooMuchError(needed, before, store.pinned_limit_bytes)
    return changed


def _to_unpin(tip: Node) -> list[Node]:
    changed: list[Node] = []
    for node in reversed(tip.path()):
        if any(child.pinned and child not in changed for child in node.children.values()):
            break
        changed.append(node)
    return changed


def _remove(store: KVStore, removal: Removal) -> None:
    if removal.lineage is not None:
        store.drop_lineage(removal.lineage.key)
    # From the end of a branch upward, so each is a leaf when it goes.
    for node in removal.nodes:
        store.forget(node, Cause.PRUNED)


def _remove_from_memory(store: KVStore, removal: Removal) -> None:
    if removal.lineage is not None:
        removal.lineage.live = None
    for node in removal.nodes:
        if store.archive is not None and store.archive.holds(node):
            store.archive.let_go(node)
        else:
            store.forget(node, Cause.PRUNED)


def _remove_from_disk(store: KVStore, removal: Removal) -> None:
    if store.archive is None:
        return
    store.archive.forget(removal.nodes)
    for node in removal.nodes:
        node.record_id, node.on_disk, node.disk_bytes = "", False, 0
        if not node.in_memory:
            store.forget(node, Cause.PRUNED)


_REMOVERS: Final[Mapping[Tier, Callable[[KVStore, Removal], None]]] = {
    Tier.BOTH: _remove,
    Tier.MEMORY: _remove_from_memory,
    Tier.DISK: _remove_from_disk,
}
