"""The tree's second tier: its nodes as records on disk.

Every node that enters the tree is written behind, by the tier's own thread. A node that leaves
memory stays in the tree, without arrays, as long as its record is there; reading it back verifies
it, and a record that is in doubt is as good as none: the tokens are computed again.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import structlog

from anyclaude.mlx.kv.lineage import Lineage, LineageKey
from anyclaude.mlx.kv.tree import Node, PrefixTree, SegmentArrays, States
from anyclaude.mlx.kv_disk import DiskStatus, DiskTier, RecordInfo, Segment
from anyclaude.mlx.kv_disk.records import Label, decode, encode, record_id
from anyclaude.mlx.tokens import TokenArray

log = structlog.get_logger(__name__)

# How long making room waits for writes that would let segments leave memory.
FLUSH_SECONDS = 2.0


class Archive:
    """Saves and restores nodes. Called on the MLX thread only."""

    def __init__(self, tier: DiskTier, *, clock: Callable[[], float] = time.time) -> None:
        self._tier = tier
        self._clock = clock

    def status(self) -> DiskStatus:
        return self._tier.status()

    def restore(self, tree: PrefixTree) -> list[Lineage]:
        """Hangs every stored segment into the empty `tree`; returns the conversations they were."""
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
        """Where a crash in a split left the upper part beside the whole, the larger branch stays.

        Returns the nodes that are not in the tree.
        """
        gone: set[Node] = set()
        # From the ends upward, so that a branch is decided before it is compared.
        for (parent, first), rivals in reversed(list(places.items())):
            if len(rivals) == 1:
                continue
            best = max(rivals, key=lambda node: node.end + _tokens_below(tree, node))
            parent.children[first] = best
            lost = [node for node in rivals if node is not best]
            log.info("segments left by a crash", records=[node.record_id for node in lost])
            gone.update(*([node, *tree.nodes_below(node)] for node in lost))
            self.forget(lost)
        return gone

    def save(self, node: Node, prefix: TokenArray, key: LineageKey) -> None:
        """Writes a node behind, in place of the record it had before a split or a new state.

        After a split the upper part goes first: the lower one's record names it as its parent.

        Args:
            prefix: all token ids up to the node's end.
        """
        content = encode(node)
        if content is None:
            return
        arrays, meta = content
        node.record_id = record_id(prefix)
        segment = Segment(
            record_id=node.record_id,
            parent_id=record_id(prefix[: node.start]),
            start=node.start,
            token_ids=node.tokens,
            arrays=arrays,
            meta=meta,
            kind=Label.of(node, key).to_text(),
            session_id=key.session_id,
            pinned=node.pinned,
        )
        node.on_disk = False
        node.stored_states = bool(node.states)
        node.disk_bytes = node.nbytes
        self._tier.save(segment, partial(_saved, node, node.record_id), replace=True)

    def load(self, node: Node) -> bool:
        """Brings a node's arrays back into memory; False if its record cannot be trusted."""
        content = self.read(node)
        if content is None:
            return False
        node.arrays, node.states = content
        return True

    def read(self, node: Node) -> tuple[SegmentArrays, States] | None:
        """A node's arrays as its record has them, verified; None if it cannot be trusted."""
        content = self._tier.load(node.record_id)
        if content is None:
            return None
        try:
            return decode(*content)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("cache record does not fit", record=node.record_id, error=str(error))
            self._tier.remove([node.record_id])
            return None

    def quarantine(self, node: Node, reason: str) -> None:
        """Puts a node's record aside: its bytes are sound and its content is not."""
        self._tier.quarantine(node.record_id, reason)

    def models(self) -> dict[str, tuple[int, int]]:
        """Records and bytes on disk by model fingerprint, the resident one first."""
        return self._tier.models()

    def remove_model(self, fingerprint: str) -> int:
        """Removes another model's records; returns their bytes."""
        return self._tier.remove_model(fingerprint)

    def holds(self, node: Node) -> bool:
        """Whether the node can be read back; the tier drops records of its own for its budget."""
        return node.on_disk and self._tier.holds(node.record_id)

    def reap(self) -> None:
        """Lets go of arrays that are written; MLX frees memory on its own thread only."""
        self._tier.reap()

    def let_go(self, node: Node) -> None:
        """Takes a stored node's arrays out of memory."""
        node.arrays = None
        node.states = {}

    def touch(self, nodes: Iterable[Node]) -> None:
        self._tier.touch([node.record_id for node in nodes if node.on_disk])

    def pin(self, nodes: Iterable[Node], *, pinned: bool) -> None:
        self._tier.pin([node.record_id for node in nodes if node.record_id], pinned)

    def forget(self, nodes: Iterable[Node]) -> None:
        """Deletes the records of nodes that leave the tree."""
        self._tier.remove([node.record_id for node in nodes if node.record_id])

    def flush(self) -> None:
        """Waits a little for writes under way, so that more segments can leave memory."""
        self._tier.flush(FLUSH_SECONDS)

    def close(self) -> None:
        self._tier.close()


def _tokens_below(tree: PrefixTree, node: Node) -> int:
    return sum(len(below.tokens) for below in tree.nodes_below(node))


def _saved(node: Node, written_id: str, ok: bool) -> None:
    """Called by the tier's thread; the node may have been rewritten since."""
    if ok and node.record_id == written_id:
        node.on_disk = True


def _node(info: RecordInfo, parent: Node) -> tuple[Node, tuple[str, str]]:
    label = Label.from_text(info.kind)
    node = Node(
        parent,
        info.start,
        info.token_ids,
        arrays=None,
        last_use=info.last_use,
        create_time=info.created,
        stable_digest=label.stable_digest,
        pinned=info.pinned,
        is_main=label.is_main,
        record_id=info.record_id,
        on_disk=True,
        stored_states=label.has_states,
        disk_bytes=info.nbytes,
    )
    return node, (label.agent_id, label.lineage_digest)
