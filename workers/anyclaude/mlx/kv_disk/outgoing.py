"""An export: picks segments from the tree, one per step.

Requests run between two steps and may split, evict or load segments, so each segment is looked up
again at its step. Its parent is written before it.
"""

from dataclasses import dataclass, field

from anyclaude.cache.v1 import cache_pb2 as pb
from anyclaude.mlx.kv.lineage import Lineage
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv.tree import Node
from anyclaude.mlx.kv_disk.export_file import ExchangeError, Fault, Manifest, NamedTip
from anyclaude.mlx.kv_disk.records import NO_KEY, record_id, segment_of
from anyclaude.mlx.kv_disk.writer import WriteJob


@dataclass(eq=False)
class Outgoing:
    """One export. MLX thread only, but for `exported`."""

    store: KVStore
    fingerprint: str
    tips: list[Node]
    lineages: list[Lineage]
    exported: pb.ExportCachesResponse = field(default_factory=pb.ExportCachesResponse)
    _done: set[Node] = field(default_factory=set)

    @classmethod
    def of(cls, store: KVStore, fingerprint: str, choice: pb.ExportCachesRequest) -> "Outgoing":
        """Raises ExchangeError if nothing matches the choice."""
        lineages = [
            lineage
            for lineage in store.lineages()
            if lineage.tip is not None
            and not choice.prefixes
            and choice.session_id in ("", lineage.key.session_id)
        ]
        tips = [lineage.tip for lineage in lineages if lineage.tip is not None]
        if not choice.session_id:
            wanted = store.tree.nodes()
            tips += [node for node in wanted if not choice.prefixes or node.stable_digest]
        if not tips:
            what = f"of session {choice.session_id!a}" if choice.session_id else "kept"
            raise ExchangeError(
                Fault.MISSING, f"Nothing is {what}. `anyclaudectl cache list` shows what there is."
            )
        return cls(store, fingerprint, tips, lineages)

    def manifest(self, model: str, now: float) -> Manifest:
        """Leaves out conversations whose names contain control characters."""
        named = [named for lineage in self.lineages if (named := _named(lineage)) is not None]
        return Manifest(
            fingerprint=self.fingerprint, model=model[:256], create_time=now, lineages=named
        )

    def step(self) -> WriteJob | None:
        """The next segment to write; None at the end. The caller releases the job."""
        while self.tips:
            tip = self.tips[-1]
            missing = None
            if tip in self.store.tree:
                missing = next((node for node in tip.path() if node not in self._done), None)
            if missing is None:
                self.tips.pop()
                continue
            job = self._job(missing)
            if job is None:
                self.exported.left_out_segments += 1
                self.tips.pop()
                continue
            self._done.add(missing)
            self.exported.segments += 1
            self.exported.tokens += len(missing.tokens)
            return job
        return None

    def _job(self, node: Node) -> WriteJob | None:
        stored = node.content
        if stored is None:
            self.store.budget.fit(node.stored_bytes)
            stored = self.store.storage.read(node)
        if stored is None:
            return None
        whole = Node(
            None,
            node.start,
            node.tokens,
            stored,
            stable_digest=node.stable_digest,
            is_main=node.is_main,
            pinned=node.pinned,
        )
        # The file's manifest names the conversations, since several may end with one segment.
        segment = segment_of(whole, node.token_ids(), NO_KEY)
        if segment is None:
            return None
        return WriteJob.of(segment, self.fingerprint, node.create_time)


def _named(lineage: Lineage) -> NamedTip | None:
    assert lineage.tip is not None
    try:
        return NamedTip(
            session_id=lineage.key.session_id,
            agent_id=lineage.key.agent_id,
            stable_digest=lineage.key.stable_digest,
            create_time=lineage.create_time,
            last_use=lineage.last_use,
            tip=record_id(lineage.tip.token_ids()),
        )
    except ValueError:
        return None
