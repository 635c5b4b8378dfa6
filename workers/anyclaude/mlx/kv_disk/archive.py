"""The tree's storage on disk: its nodes as records of the disk tier.

Every node that enters the tree is queued, and written by the tier's own thread. A node that is
evicted from memory stays in the tree, without content, as long as it has a record. Reading it back
verifies it; the tokens of a corrupt record are computed again.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

import structlog

from anyclaude.mlx.kv.lineage import Lineage, LineageKey
from anyclaude.mlx.kv.protocols import Storage
from anyclaude.mlx.kv.tree import Content, Node, PrefixTree, Record, RecordState
from anyclaude.mlx.kv_disk import DiskTier, RecordInfo
from anyclaude.mlx.kv_disk.records import Label, decode, segment_of
from anyclaude.mlx.tokens import TokenArray

log = structlog.get_logger(__name__)

# How long an eviction waits for writes, after which more segments can be evicted.
FLUSH_SECONDS: Final = 2.0


class Archive(Storage):
    """Saves and restores nodes. Called on the MLX thread only."""

    def __init__(self, tier: DiskTier) -> None:
        self._tier = tier
        self._evicted = 0

    def restore(self, tree: PrefixTree) -> list[Lineage]:
        nodes: dict[str, Node] = {"": tree.root}
        keys: dict[Node, LineageKey] = {}
        places: dict[tuple[Node, int], list[Node]] = {}
        for info in self._tier.records():
            parent = nodes.get(info.parent_id)
            if parent is None or parent.end != info.start or not len(info.token_ids):
                continue
            node, keys_of = _node(info, parent)
            place = parent, int(info.token_ids[0])
            places.setdefault(place, []).append(node)
            parent.children[place[1]] = node
            nodes[info.record_id] = node
            if info.session_id:
                keys[node] = LineageKey(info.session_id, *keys_of)
        gone = self._one_for_each_place(tree, places)
        return [
            Lineage(key, node.create_time, node.last_use, tip=node)
            for node, key in keys.items()
            if not node.children and node not in gone
        ]

    def _one_for_each_place(
        self, tree: PrefixTree, places: Mapping[tuple[Node, int], list[Node]]
    ) -> set[Node]:
        """Keeps the larger branch where a crash in a split left the upper part beside the whole.

        Returns the nodes that are not in the tree.
        """
        gone: set[Node] = set()

        def tokens_below(node: Node) -> int:
            return sum(len(below.tokens) for below in tree.nodes_below(node))

        # From the ends upward, so that a branch is decided before it is compared.
        for (parent, first), rivals in reversed(list(places.items())):
            if len(rivals) == 1:
                continue
            best = max(rivals, key=lambda node: node.end + tokens_below(node))
            parent.children[first] = best
            lost = [node for node in rivals if node is not best]
            log.info("segments left by a crash", records=_record_ids(lost))
            gone.update(*([node, *tree.nodes_below(node)] for node in lost))
            self.forget(lost)
        return gone

    def save(self, node: Node, prefix: TokenArray, key: LineageKey) -> None:
        segment = segment_of(node, prefix, key)
        if segment is None:
            return
        node.record = Record(segment.record_id, node.nbytes, has_states=bool(node.states))
        written = partial(_written, node.record)
        if not self._tier.save(segment, written):
            written(False)

    def holds(self, node: Node) -> bool:
        return node.record is not None and node.is_stored and self._tier.holds(node.record.id)

    def has_dropped(self) -> bool:
        before, self._evicted = self._evicted, self._tier.evicted
        return self._evicted != before

    def read(self, node: Node) -> Content | None:
        if node.record is None or (loaded := self._tier.load(node.record.id)) is None:
            return None
        try:
            return Content(*decode(*loaded))
        except (KeyError, TypeError, ValueError) as error:
            log.warning("cache record does not fit", record=node.record.id, error=str(error))
            self.forget([node])
            return None

    def forget(self, nodes: Iterable[Node]) -> None:
        self._tier.remove(_record_ids(nodes))

    def quarantine(self, node: Node, reason: str) -> None:
        if node.record is not None:
            self._tier.quarantine(node.record.id, reason)

    def touch(self, nodes: Iterable[Node]) -> None:
        self._tier.touch(_record_ids(node for node in nodes if node.is_stored))

    def pin(self, nodes: Iterable[Node], *, pinned: bool) -> None:
        self._tier.pin(_record_ids(nodes), pinned)

    def flush(self) -> None:
        self._tier.flush(FLUSH_SECONDS)

    def reap(self) -> None:
        self._tier.reap()


def _written(record: Record, ok: bool) -> None:
    """Called by the tier's thread."""
    record.state = RecordState.COMPLETE if ok else RecordState.FAILED


def _record_ids(nodes: Iterable[Node]) -> list[str]:
    return [node.record.id for node in nodes if node.record is not None]


def _node(info: RecordInfo, parent: Node) -> tuple[Node, tuple[str, str]]:
    label = Label.from_text(info.kind)
    node = Node(
        parent,
        info.start,
        info.token_ids,
        content=None,
        last_use=info.last_use,
        create_time=info.created,
        stable_digest=label.stable_digest,
        pinned=info.pinned,
        is_main=label.is_main,
        record=Record(info.record_id, info.nbytes, label.has_states, RecordState.COMPLETE),
    )
    return node, (label.agent_id, label.lineage_digest)
