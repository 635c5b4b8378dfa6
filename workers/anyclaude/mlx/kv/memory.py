"""Which segments leave memory first.

Order of value, cheapest loss first: the live caches of idle conversations (all of it is in the tree
too), segments of subagents, of main conversations, stable prefixes, and pinned ones; within a kind
the least recently used. Only a segment that nothing in memory builds on can go.
"""

import heapq
from collections.abc import Iterator

from anyclaude.mlx.kv.tree import Node, PrefixTree


def value(node: Node) -> tuple[bool, bool, bool, float]:
    """Sorts nodes from the first to go to the last."""
    return (node.pinned, bool(node.stable_digest), node.is_main, node.last_use)


def leaves_first(tree: PrefixTree) -> Iterator[Node]:
    """Nodes in memory in the order in which they should go; a parent comes after its children."""
    below = {
        node: sum(child.in_memory for child in node.children.values())
        for node in tree.nodes()
        if node.in_memory
    }
    ready = [(value(node), id(node), node) for node, children in below.items() if not children]
    heapq.heapify(ready)
    while ready:
        node = heapq.heappop(ready)[2]
        yield node
        parent = node.parent
        if parent in below:
            below[parent] -= 1
            if not below[parent]:
                heapq.heappush(ready, (value(parent), id(parent), parent))
