"""The cache folder of the whole service: other models, other services, and failing disks."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.figures import FIGURES, RecordProperty
from tests.integration.prompts import body
from tests.integration.service import Service
from tests.models import saved


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    """A mount below a test's own folder; skips if mounting is not allowed."""
    at.mkdir(mode=0o700, exist_ok=True)
    command = ["mount", *arguments, str(at)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def ask(service: Service, **fields: Any) -> dict[str, Any]:
    with service.http() as client:
        answer: dict[str, Any] = client.post("/v1/messages", json=body(**fields)).json()
    return answer


def reused(answer: dict[str, Any]) -> int:
    return int(answer["usage"]["cache_read_input_tokens"])


def metric(service: Service, name: str) -> float:
    text = service.control("metrics", "--prometheus").stdout
    line = next(line for line in text.splitlines() if line.startswith(name + " "))
    return float(line.split()[1])


def test_models_do_not_share_caches(home: Path, tmp_path: Path) -> None:
    """Another model reuses nothing; the first one again reads everything from disk."""
    model = {name: saved.save(tmp_path / name, seed=seed) for seed, name in enumerate("ab")}
    with Service(model=model["b"]) as alone:
        expected = ask(alone.ready())
    answers, notices, usages = {}, {}, {}
    for turn, name in enumerate("aba"):
        with Service(model=model[name], home=home) as service:
            answers[turn] = ask(service.ready())
            usages[turn] = service.control("requests", "--json").json["requests"][0]["usage"]
            told = service.control("status", "--json").json["notices"]
            # This model's template offers no tools, which status says as well.
            notices[turn] = [notice for notice in told if "tool calls" not in notice]
            assert service.stop() == 0
    assert reused(answers[0]) == reused(answers[1]) == 0
    assert answers[1]["content"] == expected["content"] != answers[0]["content"]
    assert reused(answers[2]) == answers[0]["usage"]["cache_creation_input_tokens"] > 0
    assert answers[2]["content"] == answers[0]["content"]
    assert usages[0]["disk_read_tokens"] == usages[1]["disk_read_tokens"] == 0
    assert 0 < usages[2]["disk_read_tokens"] <= reused(answers[2])
    assert notices[0] == []
    assert [notice.split(" segments")[0].rpartition("; ")[0] for notice in notices[1]] == [
        "The model is anyclaude-b now. KV caches of anyclaude-a have left memory"
    ]
    assert "are on disk, unused until that one serves again" in notices[1][0]
    assert notices[2][0].startswith("The model is anyclaude-a now. KV caches of anyclaude-b ")


def test_two_services_on_one_cache_folder(
    home: Path, tmp_path: Path, record_property: RecordProperty
) -> None:
    """The second service uses memory only; status and metrics name the folder's owner."""
    model, other = saved.save(tmp_path / "model"), tmp_path / "other"
    other.mkdir()
    with Service(model=model, home=home) as first:
        ask(first.ready())
        with (
            mounted("--bind", str(home / "cache"), at=other / "cache"),
            Service(model=model, home=other) as second,
        ):
            answer = ask(second.ready())
            assert reused(answer) == 0
            assert reused(ask(second)) > 0
            status = second.control("status", "--json")
            assert any("KV caches do not reach the disk" in p for p in status.json["problems"])
            assert status.json["disk"]["state"] == "shared"
            skipped = metric(second, "anyclaude_disk_skipped_writes_total")
            assert skipped > 0
            record_property(
                FIGURES, f"second service on a cache folder: served, {skipped:.0f} writes left out"
            )
            second.stop()
        assert reused(ask(first)) > 0
        assert first.status().disk.quarantined_records == 0


def test_a_read_only_folder(home: Path, tmp_path: Path, record_property: RecordProperty) -> None:
    """Stored caches are still read; status shows that no new ones are written."""
    model = saved.save(tmp_path / "model")
    # The tier leaves a gigabyte to others; a tmpfs takes what is written, not its size.
    with mounted("-t", "tmpfs", "-o", "size=3g,mode=700", "tmpfs", at=home / "cache"):
        with Service(model=model, home=home) as service:
            stored = ask(service.ready())
            assert service.stop() == 0
        subprocess.run(["mount", "-o", "remount,ro", str(home / "cache")], check=True)
        with Service(model=model, home=home) as service:
            again = ask(service.ready())
            assert reused(again) == stored["usage"]["cache_creation_input_tokens"]
            assert ask(service, words="something else")["type"] == "message"
            status = service.control("status", "--json").json
            assert any("Read-only file system" in problem for problem in status["problems"])
            skipped = metric(service, "anyclaude_disk_skipped_writes_total")
            assert skipped > 0
            record_property(
                FIGURES,
                f"read-only cache folder: {reused(again)} tokens read, {skipped:.0f} writes left "
                "out",
            )


def test_a_full_disk(home: Path, tmp_path: Path, record_property: RecordProperty) -> None:
    """On a full volume caches are not stored, and status says so."""
    model = saved.save(tmp_path / "model")
    with (
        mounted("-t", "tmpfs", "-o", "size=200k,mode=700", "tmpfs", at=home / "cache"),
        Service(model=model, home=home) as service,
    ):
        first = ask(service.ready())
        assert reused(first) == 0
        assert reused(ask(service)) == first["usage"]["cache_creation_input_tokens"]
        status = service.poll(lambda status: status.disk.skipped_writes > 0)
        assert any("KV caches do not reach the disk" in problem for problem in status.problems)
        skipped = metric(service, "anyclaude_disk_skipped_writes_total")
        assert skipped > 0
        record_property(FIGURES, f"full disk: served, {skipped:.0f} writes left out")


def test_records_of_an_older_format(
    home: Path, tmp_path: Path, record_property: RecordProperty
) -> None:
    """Older records are counted and not read; their tokens are computed and written again."""
    model = saved.save(tmp_path / "model")
    with Service(model=model, home=home) as service:
        sound = ask(service.ready())
        ask(service, words="something else")
        assert service.stop() == 0
    records = list((home / "cache").rglob("*.safetensors"))
    for record in records:
        record.write_bytes(b"ACKVREC\n" + record.read_bytes())
        record.rename(record.with_suffix(".kv"))
    with Service(model=model, home=home) as service:
        service.ready()
        assert service.control("status", "--json").json["disk"]["other_version_records"] == len(
            records
        )
        assert metric(service, "anyclaude_disk_other_versions") == len(records)
        assert f"{len(records)} of an unsupported version" in service.control("status").stdout
        again = ask(service)
        assert reused(again) == 0
        assert again["content"] == sound["content"]
        status = service.poll(lambda status: status.disk.records > 0)
        assert status.disk.quarantined_records == status.disk.skipped_writes == 0
        assert 0 < status.disk.other_version_records < len(records)
        record_property(FIGURES, f"records of an older format: {len(records)}, 0 loaded")
        assert service.stop() == 0
    with Service(model=model, home=home) as service:
        assert reused(ask(service.ready())) == sound["usage"]["cache_creation_input_tokens"]


def test_corrupt_records_are_quarantined(home: Path, tmp_path: Path) -> None:
    """Flipped bits are detected: the tokens are computed again, and the damage is counted."""
    model = saved.save(tmp_path / "model")
    with Service(model=model, home=home) as service:
        sound = ask(service.ready())
        assert service.stop() == 0
    records = list((home / "cache").rglob("*.safetensors"))
    assert records
    for record in records:
        content = bytearray(record.read_bytes())
        content[-100] ^= 1
        record.write_bytes(content)
    with Service(model=model, home=home) as service:
        again = ask(service.ready())
        assert reused(again) == 0
        assert again["content"] == sound["content"]
        service.poll(lambda status: status.disk.quarantined_records > 0)
        assert metric(service, "anyclaude_disk_quarantined_total") > 0
