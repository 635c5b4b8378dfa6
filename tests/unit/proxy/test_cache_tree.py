"""The page's tree of caches: runs of segments, branches one level deeper, and a bounded length."""

from anyclaude.cache.v1.cache_pb2 import CacheSegment
from anyclaude.proxy.cache_tree import rows


def test_runs_end_at_branches() -> None:
    """The shared beginning is one row, and what builds on it follows in order, one level deeper."""
    found = rows(
        [
            CacheSegment(name="a", tokens=10, bytes=1),
            CacheSegment(name="b", parent="a", tokens=5, bytes=2, prefix="prefixes/1", hits=3),
            CacheSegment(name="c", parent="b", tokens=4, lineages=["lineages/s1/main/0"]),
            CacheSegment(name="d", parent="b", tokens=3, lineages=["lineages/s2/main/0"]),
            CacheSegment(name="e", parent="d", tokens=2),
            CacheSegment(name="f", tokens=1, label="mine", prefix="prefixes/2"),
        ],
        {"s1": "shop: Sort the orders"},
    )

    assert [(row["depth"], row["name"], row["tokens"]) for row in found] == [
        (0, "prefixes/1", 15),
        (1, "shop: Sort the orders", 4),
        (1, "lineages/s2/main/0", 5),
        (0, "mine", 1),
    ]
    assert (found[0]["bytes"], found[0]["hits"]) == (3, 3)


def test_a_deep_and_wide_tree_is_bounded() -> None:
    """A conversation of 50,000 segments is one row; of 1,000 branches 200 rows are shown."""
    deep = [
        CacheSegment(name=f"{n}", parent=f"{n - 1}" if n else "", tokens=1) for n in range(50_000)
    ]
    wide = [CacheSegment(name=f"w{n}", tokens=1) for n in range(1_000)]

    assert [row["tokens"] for row in rows(deep, {})] == [50_000]
    assert len(rows(wide, {})) == 200
