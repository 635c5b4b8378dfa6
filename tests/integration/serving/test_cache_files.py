"""Caches moved from one home to another by `anyclaudectl cache export|import`."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.prompts import body, session
from tests.integration.service import Service
from tests.models import saved


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved.save(Path(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def origin(model: Path) -> Iterator[Service]:
    """A service with two conversations, of which one is pinned."""
    with Service(model=model) as started:
        started.ready()
        for name in ("one", "two"):
            ask(started, name, f"Words of conversation {name}.")
        listed = started.control("cache", "list", "--json").json["caches"]
        kept = next(cache["name"] for cache in listed if cache["session_id"] == "one")
        assert started.control("cache", "pin", kept).code == 0
        yield started


@pytest.fixture(scope="module")
def exported(origin: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "caches"
    done = origin.control("cache", "export", str(path), "--json")
    assert done.code == 0, done.stderr
    assert done.json["path"] == str(path)
    assert done.json["bytes"] == path.stat().st_size
    assert (done.json["lineages"], done.json["left_out_segments"]) == (2, 0)
    return path


def ask(service: Service, name: str, words: str) -> dict[str, Any]:
    with service.http() as http:
        answer: dict[str, Any] = http.post(
            "/v1/messages", json=body(words), headers=session(name)
        ).json()
    return answer


def caches(service: Service) -> dict[str, dict[str, Any]]:
    listed = service.control("cache", "list", "--json").json["caches"]
    return {cache["name"]: cache for cache in listed}


def test_the_first_request_elsewhere_is_warm(
    origin: Service, exported: Path, model: Path, tmp_path: Path
) -> None:
    """Imported conversations continue warm in another home, also after a restart."""
    home = tmp_path / "home"
    home.mkdir()
    assert exported.stat().st_mode & 0o777 == 0o600
    warm = {name: ask(origin, name, f"Words of conversation {name}.") for name in ("one", "two")}
    with Service(model=model, home=home) as other:
        done = other.ready().control("cache", "import", str(exported), "--json")
        assert done.code == 0, done.stderr
        assert done.json["tokens"] > 0
        assert (done.json["known_segments"], done.json["left_out_segments"]) == (0, 0)
        assert {name: cache["pinned"] for name, cache in caches(other).items()} == {
            name: cache["pinned"] for name, cache in caches(origin).items()
        }
        first = ask(other, "one", "Words of conversation one.")
        assert first["content"] == warm["one"]["content"]
        assert first["usage"] == warm["one"]["usage"]
        verified = other.control("cache", "verify", "--max-tokens", "0", "--json")
        assert (verified.code, verified.json["wrong"]) == (0, [])
        again = other.control("cache", "import", str(exported))
        assert again.stdout.startswith("Imported 0 tokens in 0 segments")
        other.stop()
    with Service(model=model, home=home) as other:
        second = ask(other.ready(), "two", "Words of conversation two.")
        assert second["usage"] == warm["two"]["usage"]
        assert second["usage"]["cache_read_input_tokens"] > 500


def test_prefixes_alone_warm_a_new_conversation(
    origin: Service, model: Path, tmp_path: Path
) -> None:
    """`--prefixes` exports no conversation, and a new one reuses the prefix."""
    path = tmp_path / "prefixes"
    done = origin.control("cache", "export", str(path), "--prefixes")
    assert done.code == 0, done.stderr
    assert "of 0 conversations" in done.stdout
    with Service(model=model, ANYCLAUDE__CACHE__DISK_LIMIT_BYTES="0") as other:
        assert other.ready().control("cache", "import", str(path)).code == 0
        (prefix,) = caches(other).values()
        usage = ask(other, "new", "Something else.")["usage"]
        assert usage["cache_read_input_tokens"] >= prefix["tokens"]


def test_a_file_that_may_not_be_written(origin: Service, exported: Path, tmp_path: Path) -> None:
    """An existing file, a missing folder, an unknown session: each error says what to do."""
    before = exported.read_bytes()
    there = origin.control("cache", "export", str(exported))
    assert (there.code, "--force" in there.stderr) == (5, True)
    assert exported.read_bytes() == before
    nowhere = origin.control("cache", "export", str(tmp_path / "none" / "caches"))
    assert (nowhere.code, "No such file" in nowhere.stderr) == (5, True)
    nobody = origin.control("cache", "export", str(tmp_path / "x"), "--session", "nobody")
    assert (nobody.code, "cache list" in nobody.stderr) == (4, True)
    both = origin.control("cache", "export", str(tmp_path / "x"), "--session", "one", "--prefixes")
    assert both.code == 2
    assert list(tmp_path.iterdir()) == []
    assert origin.control("cache", "export", str(exported), "--force").code == 0


def test_a_file_that_may_not_be_read(origin: Service, exported: Path, tmp_path: Path) -> None:
    """A missing, damaged or cut file has its exit code, and the caches stay unchanged."""
    before = caches(origin)
    assert origin.control("cache", "import", str(tmp_path / "none")).code == 4
    content = bytearray(exported.read_bytes())
    (tmp_path / "cut").write_bytes(content[:-1])
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped").write_bytes(content)
    for name in ("cut", "flipped"):
        refused = origin.control("cache", "import", str(tmp_path / name))
        assert refused.code == 1
        assert "Nothing was imported" in refused.stderr
    assert caches(origin) == before
    assert ask(origin, "one", "Words of conversation one.")["type"] == "message"


def test_another_models_file_is_refused(exported: Path, tmp_path: Path) -> None:
    """Nothing is imported from another model's file."""
    model = saved.save(tmp_path / "other", seed=7)
    with Service(model=model) as other:
        refused = other.ready().control("cache", "import", str(exported))
        assert refused.code == 5
        assert "fingerprint" in refused.stderr
        assert caches(other) == {}


def test_a_file_larger_than_all_caches_may_be(exported: Path, model: Path) -> None:
    """A file larger than the budget is refused with both numbers and the setting."""
    with Service(model=model, ANYCLAUDE__CACHE__DISK_LIMIT_BYTES="200000") as small:
        refused = small.ready().control("cache", "import", str(exported))
        assert refused.code == 5
        assert "cache.disk_limit_bytes" in refused.stderr
        assert caches(small) == {}


def test_requests_are_answered_during_exports_and_imports(origin: Service, exported: Path) -> None:
    """Requests during exports and imports are answered by the same worker process."""
    generation = origin.worker().generation
    with ThreadPoolExecutor(2) as pool:
        moves = [
            pool.submit(origin.control, "cache", verb, str(exported), *more)
            for verb, *more in (("import",), ("export", "--force"), ("import",))
        ]
        for number in range(5):
            assert ask(origin, f"three{number}", "Other words.")["type"] == "message"
    assert [move.result().code for move in moves] == [0, 0, 0]
    assert origin.worker().generation == generation
