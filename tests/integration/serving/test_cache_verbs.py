"""The operator's cache verbs on the real service, through `anyclaudectl`."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from anyclaude.cache.v1 import cache_pb2
from tests.integration.prompts import body, session
from tests.integration.service import WAIT_SECONDS, Service
from tests.models import saved


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = saved.save(Path(tmp_path_factory.mktemp("model")))
    with Service(model=model, ANYCLAUDE__CACHE__MEMORY_LIMIT_BYTES="8000000") as started:
        yield started.ready()


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    """A client of a service with empty caches."""
    assert service.control("cache", "prune", "--all", "--pinned", "--yes").code == 0
    with service.http() as client:
        yield client


def ask(http: httpx.Client, name: str, words: str = "hi there", **fields: Any) -> dict[str, int]:
    request = body(words, **fields)
    usage: dict[str, int] = http.post("/v1/messages", json=request, headers=session(name)).json()[
        "usage"
    ]
    return usage


def caches(service: Service) -> dict[str, dict[str, Any]]:
    listed = service.control("cache", "list", "--json").json["caches"]
    return {cache["name"]: cache for cache in listed}


def named(service: Service, kind: str) -> dict[str, Any]:
    return next(cache for cache in caches(service).values() if cache["kind"] == kind)


def written(service: Service, count: int) -> None:
    """Waits until so many records are on disk."""
    deadline = time.monotonic() + WAIT_SECONDS
    while service.status().disk.records < count:
        assert time.monotonic() < deadline, "nothing was written to disk"
        time.sleep(0.05)


def prune(service: Service, *conditions: str) -> Any:
    return service.control("cache", "prune", *conditions, "--json").json


def test_the_tree_shows_every_segment_once(service: Service, http: httpx.Client) -> None:
    """Two conversations with one prefix are three segments, joined at the fork."""
    ask(http, "one", "First words of one conversation.")
    ask(http, "two", "Other words.")
    segments = service.control("cache", "tree", "--json").json["segments"]
    names = {segment["name"] for segment in segments}
    assert all(segment["parent"] in names | {""} for segment in segments)
    assert sum(bool(segment["prefix"]) for segment in segments) == 1
    ends = [name for segment in segments for name in segment["lineages"]]
    assert len(ends) == 2
    assert set(ends) == {name for name in caches(service) if name.startswith("lineages/")}
    memory = service.control("cache", "list", "--json").json["memory"]
    assert sum(segment["bytes"] for segment in segments) <= memory["cache_bytes"]
    people = service.control("cache", "tree").stdout
    assert f"{len(segments)} segments" in people
    assert all(name in people for name in ends)


def test_caches_come_in_pages(service: Service, http: httpx.Client) -> None:
    """Pages of one list every cache once by name; the last has no token."""
    ask(http, "one")
    ask(http, "two", "Other words.")
    stub = service.stub("CacheService")
    pages = [stub.ListCaches(cache_pb2.ListCachesRequest(page_size=1))]
    while token := pages[-1].next_page_token:
        request = cache_pb2.ListCachesRequest(page_size=1, page_token=token)
        pages.append(stub.ListCaches(request))
    names = [cache.name for page in pages for cache in page.caches]
    assert [len(page.caches) for page in pages] == [1, 1, 1]
    assert names == sorted(caches(service))
    assert [bool(page.models) for page in pages][1:] == [False, False]


@pytest.mark.parametrize(
    ("verb", "request_", "reason"),
    [
        ("ImportCaches", cache_pb2.ImportCachesRequest(path="here"), "BAD_PATH"),
        ("ExportCaches", cache_pb2.ExportCachesRequest(path="here"), "BAD_PATH"),
        (
            "ExportCaches",
            cache_pb2.ExportCachesRequest(path="/tmp/x", session_id="s", prefixes=True),
            "BAD_FILTER",
        ),
        (
            "PruneCaches",
            cache_pb2.PruneCachesRequest(filter=cache_pb2.PruneFilter(model="a", all=True)),
            "BAD_FILTER",
        ),
        (
            "PruneCaches",
            cache_pb2.PruneCachesRequest(filter=cache_pb2.PruneFilter(percent=1, to_bytes=0)),
            "BAD_FILTER",
        ),
        ("WarmCache", cache_pb2.WarmCacheRequest(body_json=b"[]"), "BAD_REQUEST_BODY"),
        ("PinCache", cache_pb2.PinCacheRequest(name="segments/none"), "UNKNOWN_CACHE"),
        ("GetCache", cache_pb2.GetCacheRequest(name="prefixes/none"), "UNKNOWN_CACHE"),
        ("ExplainCache", cache_pb2.ExplainCacheRequest(request_id="none"), "UNKNOWN_REQUEST"),
    ],
)
def test_refusals_carry_their_reason(
    service: Service, verb: str, request_: Message, reason: str
) -> None:
    """A client of the control socket gets the worker's ErrorInfo, and nothing is changed."""
    with pytest.raises(grpc.RpcError) as caught:
        getattr(service.stub("CacheService"), verb)(request_)
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(caught.value).details[0].Unpack(info)
    assert (info.domain, info.reason) == ("anyclaude", reason)


def test_a_pinned_cache_stays(service: Service, http: httpx.Client) -> None:
    """A pinned conversation survives a prune of everything, but not one by its name."""
    ask(http, "kept")
    ask(http, "lost", "other words")
    kept = next(name for name in caches(service) if name.startswith("lineages/kept/"))
    pinned = service.control("cache", "pin", kept, "--json").json
    assert pinned["tokens"] == caches(service)[kept]["tokens"]
    assert caches(service)[kept]["pinned"]
    prune(service, "--all", "--yes")
    assert {name for name in caches(service) if name.startswith("lineages/")} == {kept}
    assert ask(http, "kept")["cache_read_input_tokens"] > 0
    assert service.control("cache", "unpin", kept).code == 0
    prune(service, "--all", "--yes")
    assert caches(service) == {}


def test_a_label_is_shown_wherever_its_cache_is(service: Service, http: httpx.Client) -> None:
    """A label is in list, show and tree, until it is removed or its cache is pruned."""
    ask(http, "one")
    name, prefix = named(service, "lineage")["name"], named(service, "prefix")["name"]
    done = service.control("cache", "label", name, "the big refactoring", "--json")
    assert (done.json["name"], done.json["label"]) == (name, "the big refactoring")
    assert service.control("cache", "label", prefix, "work").code == 0
    assert [caches(service)[key]["label"] for key in (name, prefix)] == [
        "the big refactoring",
        "work",
    ]
    shown = service.control("cache", "show", name, "--json").json["cache"]
    assert shown["label"] == "the big refactoring"
    assert f'{name} "the big refactoring"' in service.control("cache", "list").stdout
    segments = service.control("cache", "tree", "--json").json["segments"]
    assert {s["label"] for s in segments if s["lineages"] or s["prefix"]} == {
        "the big refactoring",
        "work",
    }
    assert '"the big refactoring"' in service.control("cache", "tree").stdout
    assert service.control("cache", "label", name, "").code == 0
    assert caches(service)[name]["label"] == ""
    prune(service, "--all", "--pinned", "--yes")
    ask(http, "one")
    assert [cache["label"] for cache in caches(service).values()] == ["", ""]


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("lineages/none", "words", 4),
        ("", "x" * 201, 2),
        ("", "two\nlines", 2),
        ("", "\x1b[31mred", 2),
    ],
)
def test_labels_that_are_refused(
    service: Service, http: httpx.Client, name: str, text: str, code: int
) -> None:
    """An unknown cache, or a label that is too long or not printable, changes nothing."""
    ask(http, "one")
    own = named(service, "lineage")["name"]
    assert service.control("cache", "label", name or own, text).code == code
    assert caches(service)[own]["label"] == ""


def test_a_label_survives_a_restart(tmp_path: Path) -> None:
    """A label is stored, for its owner only; another model's caches do not have it."""
    home = tmp_path / "home"
    home.mkdir()
    models = [saved.save(tmp_path / f"model{seed}", seed=seed) for seed in (1, 2)]
    labels = []
    for model in (models[0], models[1], models[0]):
        with Service(model=model, home=home) as service, service.ready().http() as http:
            ask(http, "one")
            written(service, 2)
            name = named(service, "lineage")["name"]
            labels.append(caches(service)[name]["label"])
            if len(labels) == 1:
                assert service.control("cache", "label", name, "mine").code == 0
            service.stop()
    assert labels == ["", "", "mine"]
    (file,) = home.rglob("labels.json")
    assert file.stat().st_mode & 0o777 == 0o600


def test_pinned_caches_go_when_asked_for(service: Service, http: httpx.Client) -> None:
    """`--pinned` also removes pinned caches."""
    ask(http, "kept")
    service.control("cache", "pin", named(service, "prefix")["name"])
    assert named(service, "prefix")["pinned"]
    prune(service, "--all", "--pinned", "--yes")
    assert caches(service) == {}


def test_pins_may_not_fill_the_memory(service: Service, http: httpx.Client) -> None:
    """A pin beyond the limit is refused with both numbers."""
    ask(http, "large", sentences=130)
    large = named(service, "lineage")["name"]
    refused = service.control("cache", "pin", large)
    assert refused.code == 5
    assert "cache.max_pinned_fraction" in refused.stderr
    assert not caches(service)[large]["pinned"]
    assert service.control("cache", "pin", "segments/none").code == 4


def test_a_share_of_the_bytes_is_pruned(service: Service, http: httpx.Client) -> None:
    """`--percent` removes the least recently used caches up to that share."""
    for number in range(8):
        ask(http, f"s{number}", f"{number} " * 300)
    before = service.control("cache", "list", "--json").json["memory"]["cache_bytes"]
    answer = prune(service, "--percent", "30", "--yes")
    assert answer["freed_bytes"] >= 0.3 * before
    assert answer["remaining_bytes"] > 0.4 * before
    gone = {cache["session_id"] for cache in answer["caches"]}
    assert "s0" in gone
    assert "s7" not in gone


def test_memory_is_emptied_and_the_disk_keeps(service: Service, http: httpx.Client) -> None:
    """After `--tier memory` all tokens are read back from disk."""
    first = ask(http, "tiers")
    written(service, 2)
    answer = prune(service, "--all", "--tier", "memory", "--yes")
    assert answer["remaining_bytes"] == 0
    assert named(service, "lineage")["disk_bytes"] > 0
    again = ask(http, "tiers")
    assert again["cache_read_input_tokens"] == first["cache_creation_input_tokens"]


def test_the_disk_is_emptied_and_memory_keeps(service: Service, http: httpx.Client) -> None:
    """`--tier disk` removes only the records."""
    first = ask(http, "tiers")
    written(service, 2)
    assert prune(service, "--all", "--tier", "disk")["freed_bytes"] > 0
    assert service.status().disk.records == 2
    prune(service, "--all", "--tier", "disk", "--yes")
    assert service.status().disk.records == 0
    again = ask(http, "tiers")
    assert again["cache_read_input_tokens"] == first["cache_creation_input_tokens"]


def test_another_models_records_are_pruned_by_name(tmp_path: Path) -> None:
    """`cache list` names stored models; `--model` removes the records of one."""
    home = tmp_path / "home"
    home.mkdir()
    for seed in (1, 2):
        model = saved.save(tmp_path / f"model{seed}", seed=seed)
        with Service(model=model, home=home) as service, service.ready().http() as http:
            ask(http, "any")
            written(service, 2)
            if seed == 2:
                models = service.control("cache", "list", "--json").json["models"]
                assert [stored["resident"] for stored in models] == [True, False]
                other = models[1]["fingerprint"]
                assert prune(service, "--model", other)["freed_bytes"] == models[1]["bytes"]
                assert prune(service, "--model", other, "--yes")["freed_bytes"] > 0
                left = service.control("cache", "list", "--json").json["models"]
                assert [stored["fingerprint"] for stored in left] == [models[0]["fingerprint"]]
                assert service.control("cache", "prune", "--model", other).code == 4
            service.stop()


@pytest.mark.parametrize(
    "conditions",
    [
        (),
        ("--percent", "0"),
        ("--percent", "101"),
        ("--percent", "10", "--to", "1GB"),
        ("--model", "abc", "--all"),
        ("--tier", "tape", "--all"),
        ("--to", "many"),
    ],
)
def test_invalid_conditions_are_refused(service: Service, conditions: tuple[str, ...]) -> None:
    """Each invalid condition is a usage error that names the mistake."""
    refused = service.control("cache", "prune", *conditions, "--yes")
    assert refused.code == 2
    assert refused.stderr


def test_a_file_warms_the_next_conversation(
    service: Service, http: httpx.Client, tmp_path: Path
) -> None:
    """Tools and instructions of a file are computed and stored, and a new session reuses them."""
    request = body("Hello.")
    del request["messages"]
    file = tmp_path / "request.json"
    file.write_text(json.dumps(request))
    usage = service.control("cache", "warm", str(file), "--json").json["usage"]
    assert usage["cache_creation_tokens"] > 500
    prefix = named(service, "prefix")
    written(service, 1)
    first = ask(http, "new", "Something else.")
    assert first["cache_read_input_tokens"] >= prefix["tokens"]


def test_a_file_that_is_no_request(service: Service, tmp_path: Path) -> None:
    """A missing file, invalid JSON and an invalid request each have their exit code."""
    file = tmp_path / "request.json"
    assert service.control("cache", "warm", str(file)).code == 4
    for content, said in (
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"messages": 3}', "messages"),
        ("", "The file is empty"),
        ("{}", "no prompt to compute"),
    ):
        file.write_text(content)
        refused = service.control("cache", "warm", str(file))
        assert refused.code == 2
        assert said in refused.stderr


def test_verification_finds_no_fault(service: Service, http: httpx.Client) -> None:
    """Every segment is computed again and found equal."""
    ask(http, "one")
    ask(http, "two", "Other words.")
    answer = service.control("cache", "verify", "--max-tokens", "0", "--json")
    assert answer.code == 0
    assert answer.json["segments"] == answer.json["total_segments"] > 2
    assert (answer.json["exact"], answer.json["wrong"], answer.json["differing"]) == (True, [], [])
