"""An import: puts the segments of a verified export file into the tree, one per step.

They are treated as if they had been computed here: stored once, split where they differ from the
tree, within the memory budget, and written to disk. A segment whose tokens are already in the tree
changes nothing.
"""

from dataclasses import dataclass, field

import numpy as np

import mlx.core as mx
from anyclaude.cache.v1 import cache_pb2 as pb
from anyclaude.mlx.kv.lineage import Lineage, LineageKey
from anyclaude.mlx.kv.operations import PinnedTooMuchError, pin
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv.tree import Node, SegmentArrays
from anyclaude.mlx.kv_disk.export_file import NamedTip
from anyclaude.mlx.kv_disk.import_file import Contents, Entry, ExportReader
from anyclaude.mlx.kv_disk.records import NO_KEY, decode
from anyclaude.mlx.tokens import TokenArray


@dataclass(eq=False)
class Incoming:
    """One import. MLX thread only, but for `imported`."""

    store: KVStore
    reader: ExportReader
    contents: Contents
    now: float
    imported: pb.ImportCachesResponse = field(default_factory=pb.ImportCachesResponse)
    # All token ids up to the end of the segments that are in the tree.
    _prefixes: dict[str, TokenArray] = field(default_factory=lambda: {"": np.empty(0, np.int32)})
    _keys: dict[str, LineageKey] = field(default_factory=dict)
    _next: int = 0

    def __post_init__(self) -> None:
        self._keys = {named.tip: _key(named) for named in self.contents.manifest.lineages}

    def step(self) -> bool:
        """Imports one segment; False once all are.

        Raises:
            ExchangeError: the file has changed since it was verified.
        """
        if self._next == len(self.contents.entries):
            self._name()
            return False
        entry = self.contents.entries[self._next]
        self._next += 1
        self._import(entry)
        return True

    def _import(self, entry: Entry) -> None:
        above = self._prefixes.get(entry.info.parent_id)
        if above is None:
            self.imported.left_out_segments += 1
            return
        tokens = np.concatenate([above, entry.info.token_ids])
        tip = self._known(tokens, entry) or self._graft(tokens, entry)
        if tip is None:
            self.imported.left_out_segments += 1
            return
        self._prefixes[entry.info.record_id] = tokens
        if entry.info.pinned:
            try:
                pin(self.store, tip, pinned=True)
            except PinnedTooMuchError:
                self.imported.unpinned_segments += 1

    def _known(self, tokens: TokenArray, entry: Entry) -> Node | None:
        """The node that ends with these tokens, if it has everything that the entry has."""
        match = self.store.tree.match(tokens)
        if match.length < len(tokens):
            return None
        node = match.nodes[-1]
        if node.end > len(tokens) and (entry.meta["states"] or entry.label.stable_digest):
            return None
        if entry.meta["states"] and not node.has_states:
            return None
        if entry.label.stable_digest and not node.stable_digest:
            return None
        self.imported.known_segments += 1
        return node

    def _graft(self, tokens: TokenArray, entry: Entry) -> Node | None:
        """Adds the missing part of the segment; None if it does not fit."""
        store = self.store
        for node in store.tree.match(tokens).nodes:
            node.last_use = self.now
        if not store.budget.fit(entry.info.nbytes):
            return None
        store.make_splittable(tokens)
        before = store.tree.match(tokens).length
        if before < entry.info.start:
            return None
        arrays, states = decode(self.reader.arrays(entry), entry.meta)
        tip = store.tree.insert(
            tokens,
            (),
            lambda start, end: _cut(arrays, start - entry.info.start, end - entry.info.start),
        )
        if states and not tip.states and tip.in_memory:
            tip.add_states(states)
        self._label(tip, entry)
        # The record of a conversation's last segment also names the conversation.
        store.save(tip.path(), tokens, self._keys.get(entry.info.record_id, NO_KEY))
        self.imported.segments += 1
        self.imported.tokens += len(tokens) - before
        return tip

    def _label(self, tip: Node, entry: Entry) -> None:
        for node in tip.path():
            node.create_time = node.create_time or min(entry.info.created, self.now)
            node.last_use = self.now
        tip.is_main = tip.is_main or entry.label.is_main
        tip.stable_digest = tip.stable_digest or entry.label.stable_digest

    def _name(self) -> None:
        """Names the conversations."""
        found = []
        for named in self.contents.manifest.lineages:
            tokens = self._prefixes.get(named.tip)
            tip = self._end(tokens) if tokens is not None else None
            if tip is None:
                continue
            times = min(named.create_time, self.now), min(named.last_use, self.now)
            found.append(Lineage(_key(named), *times, tip=tip))
        prefixes = [node for node in self.store.tree.nodes() if node.stable_digest]
        self.store.adopt(found, prefixes)
        self.imported.lineages = len(found)

    def _end(self, tokens: TokenArray) -> Node | None:
        match = self.store.tree.match(tokens)
        exact = match.length == len(tokens) and match.nodes[-1].end == len(tokens)
        return match.nodes[-1] if exact else None


def _key(named: NamedTip) -> LineageKey:
    return LineageKey(named.session_id, named.agent_id, named.stable_digest)


def _cut(arrays: SegmentArrays, start: int, end: int) -> SegmentArrays:
    if all(array.shape[-2] == end - start for leaf in arrays for array in leaf):
        return arrays
    cut = [tuple(mx.contiguous(array[..., start:end, :]) for array in leaf) for leaf in arrays]
    mx.eval(cut)
    return cut
