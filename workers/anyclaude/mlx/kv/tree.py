"""The prefix tree: the KV of every distinct prefix once, found by its token ids.

A node is a *segment*: a run of tokens with their KV in the full-attention layers and, if it was
saved, the state of all other layers after the last token. A conversation is a path from the root.
Children begin with different tokens, so following a prompt never branches.

Invariants:
  - node.start is its parent's end; only the root has no tokens;
  - arrays are never written to after they are in the tree, so they may be shared and read at will;
  - `content is None` means that the segment is in the storage only;
  - splitting changes no path's tokens; the saved state stays with the lower part.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property

import numpy as np

import mlx.core as mx
from anyclaude.mlx.adapter import Layer
from anyclaude.mlx.kv import layers as kinds
from anyclaude.mlx.tokens import TokenArray, common_prefix, token_digest

# For each full-attention leaf in order, its arrays; the token axis is the last but one.
SegmentArrays = list[tuple[mx.array, ...]]
# By leaf index, the state of a layer that only a saved state restores.
States = dict[int, Layer]


@dataclass(frozen=True, eq=False)
class Content:
    """The KV of a segment in memory, with the states saved at its end."""

    arrays: SegmentArrays
    states: States = field(default_factory=dict)

    @cached_property
    def nbytes(self) -> int:
        kv = sum(array.nbytes for leaf in self.arrays for array in leaf)
        return kv + sum(kinds.nbytes(state) for state in self.states.values())


class RecordState(Enum):
    WRITING = auto()
    COMPLETE = auto()
    FAILED = auto()


@dataclass(eq=False)
class Record:
    """The state of a segment's copy in the storage."""

    id: str
    nbytes: int
    has_states: bool
    # Set by the storage, from its own thread.
    state: RecordState = RecordState.WRITING


@dataclass(eq=False)
class Node:
    """A segment of the tree."""

    parent: "Node | None"
    start: int
    tokens: TokenArray
    content: Content | None
    children: "dict[int, Node]" = field(default_factory=dict)
    last_use: float = 0.0
    create_time: float = 0.0
    hits: int = 0
    # Ends the tools and instructions of some conversation; its digest names it.
    stable_digest: str = ""
    pinned: bool = False
    # Belongs to a main conversation, which outlives those of subagents.
    is_main: bool = False
    record: Record | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def name(self) -> str:
        """The name that people see: the digest of all tokens up to its end."""
        return f"segments/{token_digest(self.token_ids())}"

    @property
    def is_root(self) -> bool:
        return self.parent is None

    @property
    def in_memory(self) -> bool:
        return self.content is not None

    @property
    def arrays(self) -> SegmentArrays | None:
        return self.content.arrays if self.content else None

    @property
    def states(self) -> States:
        return self.content.states if self.content else {}

    @property
    def has_states(self) -> bool:
        """Whether a cache that needs states can begin at this node's end."""
        if self.content is not None:
            return bool(self.content.states)
        return self.record is not None and self.record.has_states

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.content.nbytes if self.content else 0

    @property
    def is_stored(self) -> bool:
        return self.record is not None and self.record.state is RecordState.COMPLETE

    @property
    def stored_bytes(self) -> int:
        """Bytes of its complete record."""
        return self.record.nbytes if self.record is not None and self.is_stored else 0

    @property
    def kv_bytes(self) -> int:
        """Bytes that it uses when it is in memory."""
        return self.nbytes or self.stored_bytes

    @property
    def needs_record(self) -> bool:
        """Whether it has to be written: it is new or changed, or writing failed before."""
        failed = self.record is not None and self.record.state is RecordState.FAILED
        return self.in_memory and (self.record is None or failed)

    def add_states(self, states: States) -> None:
        """Gives a segment in memory the states saved at its end; its record becomes stale."""
        assert self.content is not None
        self.content, self.record = Content(self.content.arrays, states), None

    def drop_states(self) -> None:
        """Drops saved states from memory; the record keeps them."""
        assert self.content is not None
        self.content = Content(self.content.arrays)

    def path(self) -> "list[Node]":
        """The nodes from below the root down to this one."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def token_ids(self) -> TokenArray:
        """All tokens that lead to this node's end."""
        return np.concatenate([np.empty(0, np.int32), *(node.tokens for node in self.path())])


@dataclass(frozen=True)
class Match:
    """How much of a prompt is in the tree: the nodes on its path and the tokens that match."""

    nodes: tuple[Node, ...]
    length: int

    def reusable(self, limit: int, *, needs_states: bool) -> int:
        """The longest part, at most `limit` tokens, that a cache can be made of."""
        length = min(self.length, limit)
        if not needs_states:
            return length
        return max(
            (node.end for node in self.nodes if node.has_states and node.end <= length), default=0
        )


class PrefixTree:
    """All segments of one model."""

    def __init__(self) -> None:
        self.root = Node(None, 0, np.empty(0, np.int32), Content([]))

    def nodes(self) -> Iterator[Node]:
        """Every segment, parents before children."""
        return self.nodes_below(self.root)

    def nodes_below(self, top: Node) -> Iterator[Node]:
        waiting = list(top.children.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(node.children.values())

    def __contains__(self, node: Node) -> bool:
        """Whether the node is still part of this tree."""
        while node.parent is not None:
            if node.parent.children.get(int(node.tokens[0])) is not node:
                return False
            node = node.parent
        return node is self.root

    @property
    def nbytes(self) -> int:
        return sum(node.nbytes for node in self.nodes())

    def match(self, tokens: TokenArray) -> Match:
        """Follows `tokens` from the root."""
        nodes: list[Node] = []
        node, position = self.root, 0
        while position < len(tokens):
            child = node.children.get(int(tokens[position]))
            if child is None:
                break
            shared = common_prefix(child.tokens, tokens[position:])
            nodes.append(child)
            position += shared
            node = child
            if shared < len(child.tokens):
                break
        return Match(tuple(nodes), position)

    def insert(
        self, tokens: TokenArray, cuts: Iterable[int], extract: Callable[[int, int], SegmentArrays]
    ) -> Node:
        """Adds the tokens that are missing; returns the node at the end of `tokens`.

        A node ends at each of the `cuts`; one inside an existing node splits it. `extract` gives
        the arrays of the tokens from `start` to `end`, and is called for new ones only.
        """
        match = self.match(tokens)
        node = match.nodes[-1] if match.nodes else self.root
        if match.length < node.end:
            node = self.split(node, match.length - node.start)
        bounds = sorted({cut for cut in cuts if 0 < cut < len(tokens)} | {len(tokens)})
        for end in bounds:
            if end <= node.end:
                self._cut(node, end)
                continue
            start = node.end
            child = Node(node, start, tokens[start:end].copy(), Content(extract(start, end)))
            node.children[int(tokens[start])] = child
            node = child
        return node

    def split(self, node: Node, at: int) -> Node:
        """Cuts `node` after its first `at` tokens; returns the upper part. It must be in memory."""
        assert node.parent is not None
        assert node.content is not None
        assert 0 < at < len(node.tokens)
        parts = [
            [tuple(mx.contiguous(a[..., piece, :]) for a in leaf) for leaf in node.content.arrays]
            for piece in (slice(0, at), slice(at, None))
        ]
        mx.eval(parts)
        upper = Node(
            node.parent,
            node.start,
            node.tokens[:at].copy(),
            Content(parts[0]),
            last_use=node.last_use,
            create_time=node.create_time,
            hits=node.hits,
            pinned=node.pinned,
            is_main=node.is_main,
        )
        upper.parent.children[int(upper.tokens[0])] = upper  # type: ignore[union-attr]
        # Both parts need a record of their own.
        node.record = None
        node.parent, node.start = upper, node.start + at
        node.tokens, node.content = node.tokens[at:].copy(), Content(parts[1], node.states)
        upper.children = {int(node.tokens[0]): node}
        return upper

    def remove(self, node: Node) -> None:
        """Removes a node and everything below it from the tree."""
        assert node.parent is not None
        del node.parent.children[int(node.tokens[0])]

    def _cut(self, node: Node, end: int) -> None:
        """Splits the path to `node` so that a node ends at `end`."""
        for part in node.path():
            if part.start < end < part.end and part.in_memory:
                self.split(part, end - part.start)
                return
