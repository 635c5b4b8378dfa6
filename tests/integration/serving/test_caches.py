"""The cache verbs against the real service, through `anyclaudectl`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from anyclaude.cache.v1 import cache_pb2
from tests.integration.prompts import body, session
from tests.integration.service import WAIT_SECONDS, Service
from tests.models import saved


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = saved.save(Path(tmp_path_factory.mktemp("model")))
    # Asynchronous writes would change the list between two calls.
    with Service(model=model, ANYCLAUDE__CACHE__DISK_LIMIT_BYTES="0") as started:
        yield started.ready()


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    """A client of a service with empty caches."""
    assert service.control("cache", "prune", "--all", "--yes").code == 0
    with service.http() as client:
        yield client


def answer(http: httpx.Client, name: str, words: str = "hi there") -> dict[str, Any]:
    message: dict[str, Any] = http.post(
        "/v1/messages", json=body(words), headers=session(name)
    ).json()
    return message


def ask(http: httpx.Client, name: str, words: str = "hi there") -> dict[str, int]:
    usage: dict[str, int] = answer(http, name, words)["usage"]
    return usage


def caches(service: Service) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = service.control("cache", "list", "--json").json["caches"]
    return listed


def lineages(service: Service) -> set[str]:
    return {cache["session_id"] for cache in caches(service) if cache["kind"] == "lineage"}


def test_a_conversation_and_its_prefix_are_listed(service: Service, http: httpx.Client) -> None:
    """Both are listed with tokens and bytes, and shown by name."""
    ask(http, "alpha")
    kinds = {cache["kind"] for cache in caches(service)}
    assert kinds == {"lineage", "prefix"}
    for cache in caches(service):
        assert cache["tokens"] > 0
        assert cache["bytes"] > 0
        shown = service.control("cache", "show", cache["name"], "--json")
        assert shown.json["cache"]["name"] == cache["name"]
    assert service.control("cache", "show", "lineages/none").code == 4


@pytest.mark.parametrize(
    "condition",
    [("--session", "alpha"), ("--older-than", "0s"), ("--to", "300kB"), ("--all",)],
)
def test_a_dry_run_promises_what_is_then_freed(
    service: Service, http: httpx.Client, condition: tuple[str, ...]
) -> None:
    """A dry run removes nothing; `--yes` removes exactly what it listed."""
    for name in ("alpha", "beta"):
        ask(http, name, f"{name} begins otherwise")
    before = _caches(service)
    planned = service.control("cache", "prune", *condition, "--json").json
    unchanged = _caches(service)
    assert list(unchanged.caches) == list(before.caches)
    assert unchanged.memory.cache_bytes == before.memory.cache_bytes
    done = service.control("cache", "prune", *condition, "--yes", "--json").json
    after = _caches(service)

    assert (planned.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert done == planned
    assert 0 < done["freed_bytes"] == before.memory.cache_bytes - after.memory.cache_bytes
    assert done["remaining_bytes"] == after.memory.cache_bytes
    removed = {cache["name"] for cache in done["caches"]}
    names = {cache.name for cache in before.caches}
    assert removed <= names
    assert {cache.name for cache in after.caches} == names - removed


def test_a_pruned_session_leaves_tools_and_instructions(
    service: Service, http: httpx.Client
) -> None:
    """The next conversation reuses the prefix, and the pruned one can continue."""
    first = answer(http, "alpha")
    ask(http, "beta")
    service.control("cache", "prune", "--session", "alpha", "--yes")
    assert lineages(service) == {"beta"}
    again = answer(http, "alpha")
    kept = first["usage"]["cache_creation_input_tokens"]
    assert again["usage"]["cache_read_input_tokens"] > 0.9 * kept
    assert again["content"] == first["content"]


def test_pruning_all_leaves_nothing(service: Service, http: httpx.Client) -> None:
    """Every tier is empty, so the next request computes everything."""
    ask(http, "alpha")
    assert service.control("cache", "prune", "--all", "--yes").code == 0
    assert caches(service) == []
    assert ask(http, "alpha")["cache_read_input_tokens"] == 0


def test_pruning_by_age_and_by_bytes(service: Service, http: httpx.Client) -> None:
    """No cache is older than an hour; pruning everything to zero bytes removes all."""
    ask(http, "alpha")
    assert service.control("cache", "prune", "--older-than", "1h", "--json").json["caches"] == []
    done = service.control("cache", "prune", "--to", "0B", "--all", "--yes", "--json").json
    assert done["remaining_bytes"] == 0
    assert lineages(service) == set()


def test_metrics_count_what_was_reused_and_computed(service: Service, http: httpx.Client) -> None:
    """The counters grow by the numbers in the usage."""
    before = _prefix_tokens(service)
    usages = [ask(http, "alpha"), ask(http, "alpha", "and the tests?")]
    after = _prefix_tokens(service)
    assert after["reused"] - before["reused"] == sum(
        usage["cache_read_input_tokens"] for usage in usages
    )
    assert after["computed"] - before["computed"] == sum(
        usage["cache_creation_input_tokens"] + usage["input_tokens"] for usage in usages
    )


def test_modes_are_shown_and_one_without_a_worker_is_refused(service: Service) -> None:
    """`mode` shows the current mode; an unknown one is a usage error, one not ready exits 5."""
    assert service.control("mode", "--json").json["mode"] == "mlx-lm"
    assert service.control("mode", "mlx-lm").code == 0
    assert service.control("mode", "nonsense").code == 2
    assert service.control("mode", "openrouter").code == 5


def test_each_exit_code_says_what_happened(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0, 2, 4, 5, 6 and 3 by the real daemon, each with a word to the user; a worker that gave up
    is 7, which the tests of broken models reach."""

    def expect(code: int, *arguments: str) -> None:
        ended = service.control(*arguments)
        assert ended.code == code, (arguments, ended)
        assert bool(ended.stderr) == bool(code)
        assert "Traceback" not in ended.stderr

    expect(0, "status")
    expect(2, "cache", "prune")
    expect(2, "cache", "prune", "--older-than", "a while")
    expect(4, "cache", "show", "lineages/nobody/main")
    expect(4, "worker", "restart", "nobody")
    expect(0, "worker", "restart", "mlx")
    expect(6, "wait", "--ready", "--timeout", "0")
    expect(5, "cache", "list")
    expect(0, "wait", "--ready", "--timeout", str(WAIT_SECONDS))
    monkeypatch.setitem(service.environ, "ANYCLAUDE_HOME", str(service.home / "nothing-here"))
    expect(3, "status")


def _caches(service: Service) -> cache_pb2.ListCachesResponse:
    answered: cache_pb2.ListCachesResponse = service.stub("CacheService").ListCaches(
        cache_pb2.ListCachesRequest()
    )
    return answered


def _prefix_tokens(service: Service) -> dict[str, float]:
    document = service.control("metrics", "--json").json
    values: dict[str, float] = {}
    for metric in document["metrics"]:
        for kind in ("reused", "computed"):
            if metric["name"] == f"anyclaude_prefix_tokens_{kind}_total":
                values[kind] = values.get(kind, 0) + metric["value"]
    return {"reused": 0, "computed": 0} | values
