"""The cache verbs against the real service, through `anyclaudectl`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.prompts import body, session
from tests.integration.service import Service
from tests.models import saved


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = saved.save(Path(tmp_path_factory.mktemp("model")))
    with Service(model=model) as started:
        yield started.ready()


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    """A client, over empty caches."""
    assert service.control("cache", "prune", "--all", "--yes").code == 0
    with service.http() as client:
        yield client


def ask(http: httpx.Client, name: str, words: str = "hi there") -> dict[str, int]:
    response = http.post("/v1/messages", json=body(words), headers=session(name))
    usage: dict[str, int] = response.json()["usage"]
    return usage


def caches(service: Service) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = service.control("cache", "list", "--json").json["caches"]
    return listed


def lineages(service: Service) -> set[str]:
    return {cache["session_id"] for cache in caches(service) if cache["kind"] == "lineage"}


def test_a_conversation_and_its_prefix_are_listed(service: Service, http: httpx.Client) -> None:
    """Both with their tokens and bytes; each can be shown by its name."""
    ask(http, "alpha")
    kinds = {cache["kind"] for cache in caches(service)}
    assert kinds == {"lineage", "prefix"}
    for cache in caches(service):
        assert cache["tokens"] > 0
        assert cache["bytes"] > 0
        shown = service.control("cache", "show", cache["name"], "--json")
        assert shown.json["cache"]["name"] == cache["name"]
    assert service.control("cache", "show", "lineages/none").code == 4


def test_pruning_is_a_dry_run_without_yes(service: Service, http: httpx.Client) -> None:
    """What would go is listed with its bytes, and stays."""
    ask(http, "alpha")
    planned = service.control("cache", "prune", "--session", "alpha", "--json").json
    assert planned["freed_bytes"] > 0
    assert lineages(service) == {"alpha"}


def test_a_pruned_session_leaves_tools_and_instructions(
    service: Service, http: httpx.Client
) -> None:
    """The next conversation reuses the prefix, and the pruned one still gets its answer."""
    first = ask(http, "alpha")
    ask(http, "beta")
    service.control("cache", "prune", "--session", "alpha", "--yes")
    assert lineages(service) == {"beta"}
    again = ask(http, "alpha")
    assert again["cache_read_input_tokens"] > 0.9 * first["cache_creation_input_tokens"]


def test_pruning_all_leaves_nothing(service: Service, http: httpx.Client) -> None:
    """Every tier is empty: the next request computes everything."""
    ask(http, "alpha")
    assert service.control("cache", "prune", "--all", "--yes").code == 0
    assert caches(service) == []
    assert ask(http, "alpha")["cache_read_input_tokens"] == 0


def test_pruning_by_age_and_by_bytes(service: Service, http: httpx.Client) -> None:
    """Nothing is older than an hour; to no bytes at all everything goes."""
    ask(http, "alpha")
    assert service.control("cache", "prune", "--older-than", "1h", "--json").json["caches"] == []
    done = service.control("cache", "prune", "--to", "0B", "--yes", "--json").json
    assert done["remaining_bytes"] == 0
    assert lineages(service) == set()


def test_metrics_count_what_was_reused_and_computed(service: Service, http: httpx.Client) -> None:
    """The counters grow by just what the usage says."""
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
    """`mode` names the present one; a wrong name is a usage error, one not ready exits 5."""
    assert service.control("mode", "--json").json["mode"] == "mlx-lm"
    assert service.control("mode", "mlx-lm").code == 0
    assert service.control("mode", "nonsense").code == 2
    assert service.control("mode", "openrouter").code == 5


def _prefix_tokens(service: Service) -> dict[str, float]:
    document = service.control("metrics", "--json").json
    values: dict[str, float] = {}
    for metric in document["metrics"]:
        for kind in ("reused", "computed"):
            if metric["name"] == f"anyclaude_prefix_tokens_{kind}_total":
                values[kind] = values.get(kind, 0) + metric["value"]
    return {"reused": 0, "computed": 0} | values
