"""`anyclaudectl bench` against the real service with the demo model."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from anyclaude.cli.bench.trials import GROWTH_QUERIES
from tests.integration.service import Service

_SMALL = ("--tokens", "300", "--runs", "1", "--contexts", "200", "--memory-queries", "4")


@pytest.fixture(scope="module")
def measured(demo: Service, tmp_path_factory) -> tuple[dict, str, Path]:
    """The document of one small run, what it wrote to standard error, and its picture."""
    picture = tmp_path_factory.mktemp("bench") / "bench.svg"
    done = demo.control("bench", *_SMALL, "--json", "--picture", str(picture))
    assert done.code == 0, done.stderr
    return done.json, done.stderr, picture


def test_every_test_has_its_rows(measured) -> None:
    """First query, follow-ups, growth, sizes and memory are measured, and follow-ups reuse."""
    document, progress, _ = measured
    rows = {(row["test"], row["name"]): row for row in document["rows"]}
    first, follow = rows["1 session", "query 1"], rows["1 session", "queries 2 to 10"]

    assert document["model"] == "anyclaude-demo"
    assert first["reused_tokens"] < first["prompt_tokens"] / 2
    assert follow["reused_tokens"] > follow["prompt_tokens"] * 0.8
    assert (len(first["samples"]), len(follow["samples"])) == (1, 9)
    another = rows["1 session", "another session"]
    assert another["reused_tokens"] > another["prompt_tokens"] * 0.8
    assert abs(first["prompt_tokens"] - 350) < 100
    sizes = [rows["2 growth", f"caches after query {n}"]["median"] for n in (1, GROWTH_QUERIES)]
    assert 0 < sizes[0] < sizes[1]
    assert rows["3 context", "200 tokens, follow-up"]["reused_tokens"] > 150
    assert rows["4 memory", "resident after 4 queries"]["median"] > 100_000_000
    assert all(test in progress for test in ("1 session", "3 context", "4 memory"))


def test_its_caches_are_removed(demo: Service, measured) -> None:
    """No conversation and no prefix of the run is left to compete with the user's caches."""
    document, *_ = measured
    caches = demo.control("cache", "list", "--json").json["caches"]
    sizes = {row["prompt_tokens"] for row in document["rows"]}

    assert not [cache for cache in caches if cache["session_id"].startswith("bench-")]
    assert not [
        c
        for c in caches
        if c["kind"] == "prefix"
        and c["last_use_time"] > document["time"]
        and any(abs(c["tokens"] - size) < 80 for size in sizes)
    ]


def test_the_picture_shows_every_time(measured) -> None:
    """The SVG file is well formed and has each row of seconds."""
    document, _, picture = measured
    texts = "".join(ElementTree.parse(picture).getroot().itertext())

    for row in document["rows"]:
        assert (f": {row['name']}" in texts) == (row["unit"] == "seconds")


@pytest.mark.parametrize("dialect", [(), ("--openai",)])
def test_another_address_is_measured(demo: Service, dialect: tuple[str, ...]) -> None:
    """By either API, with the model that the server lists first, and without a memory test."""
    small = ("--tokens", "200", "--runs", "1", "--contexts", "", "--memory-queries", "2")
    done = demo.control("bench", "--base-url", demo.base_url, *small, *dialect, "--json")
    assert done.code == 0, done.stderr
    rows = {row["name"]: row for row in done.json["rows"]}

    assert rows["queries 2 to 10"]["reused_tokens"] > 150
    assert {row["unit"] for row in rows.values()} == {"seconds"}


def test_two_results_are_compared(demo: Service, measured, tmp_path: Path) -> None:
    """A run that is three times as slow in every sample is worse; a result equals itself."""
    document, *_ = measured
    slow = [row | {"samples": [3 * s for s in row["samples"]]} for row in document["rows"]]
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(json.dumps(document))
    after.write_text(json.dumps(document | {"rows": slow}))
    changes = demo.control("bench", "compare", str(before), str(after), "--json").json["changes"]
    shown = demo.control("bench", "compare", str(before), str(before)).stdout

    worse = {change["name"] for change in changes if change["verdict"] == "worse"}
    assert {"query 1", "another session"} <= worse
    assert all(change["ratio"] in (None, pytest.approx(3)) for change in changes)
    assert "within noise" in shown
    assert "worse" not in shown


def test_what_cannot_be_measured_is_explained(demo: Service, tmp_path: Path) -> None:
    """Nothing listens; an option that does not fit; a file of something else."""
    small = ("--runs", "1", "--contexts", "")
    absent = demo.control("bench", "--base-url", "http://127.0.0.1:9", "--model", "m", *small)
    wrong = demo.control("bench", "--contexts", "many")
    surplus = demo.control("bench", "--api-key", "k")
    file = tmp_path / "x.json"
    file.write_text("{}")
    foreign = demo.control("bench", "compare", str(file), str(file))

    assert [done.code for done in (absent, wrong, surplus, foreign)] == [1, 2, 2, 1]
    assert "Check that the server runs" in absent.stderr
    assert "1000,4000" in wrong.stderr
    assert "--base-url" in surplus.stderr
    assert "bench --json" in foreign.stderr
