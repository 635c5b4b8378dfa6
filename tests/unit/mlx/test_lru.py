"""The cache that evicts the least recently used entries."""

from anyclaude.mlx.lru import LRUCache


def _fail() -> int:
    raise AssertionError("the value is cached")


def test_the_least_recently_used_entry_is_evicted() -> None:
    """Reading an entry protects it; the one that was not read for longest is made again."""
    cache: LRUCache[str, int] = LRUCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get_or_make("a", _fail) == 1
    cache.put("c", 3)
    assert cache.get_or_make("a", _fail) == 1
    assert cache.get_or_make("b", lambda: 4) == 4


def test_entries_count_by_their_size() -> None:
    """A replaced value no longer counts, and one over the limit is not kept."""
    cache: LRUCache[str, str] = LRUCache(10, lambda _, value: len(value))
    for _ in range(3):
        cache.put("a", "x" * 6)
    cache.put("b", "y" * 4)
    assert cache.get_or_make("a", lambda: "again") == "x" * 6
    cache.put("c", "z" * 11)
    assert [cache.get_or_make(key, lambda: "again") for key in "abc"] == ["again"] * 3


def test_the_number_of_sized_entries_can_be_limited_too() -> None:
    """Putting reports what it evicted, and looking through the entries is not a use."""
    cache: LRUCache[str, str] = LRUCache(10, lambda _, value: len(value), max_entries=2)
    assert cache.put("a", "x") == []
    cache.put("b", "y")
    assert cache.items() == [("a", "x"), ("b", "y")]
    assert cache.put("c", "z") == ["a"]
    assert (cache.get("a"), cache.get("b")) == (None, "y")
    assert cache.put("d", "w" * 9) == ["c"]
    assert cache.size == 10
