"""Export files that were damaged or forged: refused whole, with nothing taken over."""

import os
import random
import resource
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anyclaude.mlx.kv_disk.exchange.faults import ExchangeError, Fault
from anyclaude.mlx.kv_disk.exchange.incoming import Incoming
from anyclaude.mlx.kv_disk.exchange.layout import HEAD_BYTES, ReadBounds
from anyclaude.mlx.kv_disk.exchange.outgoing import Choice, Outgoing
from anyclaude.mlx.kv_disk.exchange.reading import opened
from anyclaude.mlx.kv_disk.exchange.writing import ExportWriter
from anyclaude.mlx.kv_disk.writing import PreparedRecord
from tests.figures import FIGURES, RecordProperty
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import Bench, bench, words
from tests.unit.mlx.kv_disk.forged_export import (
    BOUNDS,
    Forged,
    Forgery,
    redescribed,
    relabelled,
    renamed,
    retold,
    tokens_of,
)
from tests.unit.mlx.kv_disk.test_exchange import FINGERPRINT, export

SEED = 20_251_127
FLIPS = 1000


@pytest.fixture(scope="module")
def engine() -> Bench:
    """Where files are imported; stays empty."""
    return bench(tiny.Family.SLIDING)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound file: a prefix, and two segments of a conversation with saved states."""
    path = tmp_path_factory.mktemp("export") / "caches"
    origin = bench(tiny.Family.SLIDING)
    origin.start(words(random.Random(1), 60), "s", stable=20).answer()
    export(origin, path)
    return path


def refused(engine: Bench, path: Path, bounds: ReadBounds = BOUNDS) -> ExchangeError:
    """The error of importing `path`, which must leave the caches as they are."""
    mold = engine.engine.mold()
    assert mold is not None
    with pytest.raises(ExchangeError) as error, opened(path, FINGERPRINT, bounds) as reader:
        reader.contents(mold)
    assert list(engine.engine.store.tree.nodes()) == []
    assert str(path) in str(error.value)
    return error.value


def test_the_forger_tells_the_truth_when_it_changes_nothing(
    engine: Bench, sound: Path, tmp_path: Path
) -> None:
    """Taken apart and put together again the file is the same, and passes."""
    forged = Forged.read(sound)
    forged.write(tmp_path / "same")
    assert (tmp_path / "same").read_bytes() == sound.read_bytes()
    assert len(forged.records) >= 3
    mold = engine.engine.mold()
    assert mold is not None
    with opened(tmp_path / "same", FINGERPRINT) as reader:
        assert len(reader.contents(mold).entries) == len(forged.records)


def test_no_truncated_file_is_taken(
    engine: Bench, sound: Path, tmp_path: Path, record_property: RecordProperty
) -> None:
    """Cut at every 4 KiB, within every head and frame, and one byte short."""
    whole = sound.read_bytes()
    lengths = {0, 1, 8, HEAD_BYTES, len(whole) - 1, len(whole) - 16, *range(0, len(whole), 4096)}
    for length in lengths:
        (tmp_path / "cut").write_bytes(whole[:length])
        assert refused(engine, tmp_path / "cut").fault is Fault.DAMAGED
    record_property(
        FIGURES, f"export of {len(whole)} bytes cut at {len(lengths)} places: 0 taken over"
    )


def test_no_flipped_bit_is_taken(
    engine: Bench, sound: Path, tmp_path: Path, record_property: RecordProperty
) -> None:
    """1,000 random bits, anywhere in the file."""
    whole, dice = sound.read_bytes(), random.Random(SEED)
    for _ in range(FLIPS):
        bit = dice.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "flipped").write_bytes(flipped)
        refused(engine, tmp_path / "flipped")
    record_property(
        FIGURES, f"bit flips in an export of {len(whole)} bytes, seed {SEED}: {FLIPS}, 0 taken over"
    )


def _duplicate(forged: Forged) -> None:
    forged.records.append(forged.records[-1])
    forged.data.append(forged.data[-1])


def _orphan(forged: Forged) -> None:
    del forged.records[0], forged.data[0]


def _child_first(forged: Forged) -> None:
    forged.records[:2] = forged.records[1::-1]
    forged.data[:2] = forged.data[1::-1]


def _other_words(forged: Forged) -> None:
    retold(forged.records[0], tokens_of(forged.records[0])[::-1])


def _swapped_data(forged: Forged) -> None:
    forged.data[0] = forged.data[0][::-1]


def _negative(forged: Forged) -> None:
    renamed(forged.records[0], [], [-1, *tokens_of(forged.records[0])[1:]])


def _fewer_tokens(forged: Forged) -> None:
    renamed(forged.records[0], [], tokens_of(forged.records[0])[:-1])


def _no_tokens(forged: Forged) -> None:
    renamed(forged.records[0], [], [])


def _array(forged: Forged, **changes: Any) -> None:
    forged.records[0]["arrays"][0] |= changes


def _grown(forged: Forged) -> None:
    shape = forged.records[0]["arrays"][0]["shape"]
    _array(forged, shape=[*shape[:2], 2**40, shape[3]])


def _another_array(forged: Forged) -> None:
    arrays = forged.records[0]["arrays"]
    arrays.append(arrays[-1] | {"name": "more", "shape": [0], "checks": []})
    arrays[-1]["offset"] = len(forged.data[0])


def _array_twice(forged: Forged) -> None:
    forged.records[0]["arrays"][1]["name"] = forged.records[0]["arrays"][0]["name"]


def _states_of(forged: Forged) -> dict[str, Any]:
    return next(record for record in forged.records if "WindowKVCache" in record["meta"])


def _state(place: int, value: Any) -> Forgery:
    def forge(forged: Forged) -> None:
        def change(meta: Any) -> None:
            next(iter(meta["states"].values()))["values"][place] = value

        redescribed(_states_of(forged), change)

    return forge


def _class(name: str) -> Forgery:
    def forge(forged: Forged) -> None:
        def change(meta: Any) -> None:
            next(iter(meta["states"].values()))["class"] = name

        redescribed(_states_of(forged), change)

    return forge


def _fewer_states(forged: Forged) -> None:
    redescribed(_states_of(forged), lambda meta: meta["states"].popitem())


def _more_leaves(forged: Forged) -> None:
    redescribed(forged.records[0], lambda meta: meta["leaves"].append(10**9))


def _field(**changes: Any) -> Forgery:
    return lambda forged: forged.records[0].update(changes)


def _label(**changes: Any) -> Forgery:
    return lambda forged: relabelled(forged.records[0], **changes)


def _head(**changes: Any) -> Forgery:
    return lambda forged: forged.header.update(changes)


def _named(**changes: Any) -> Forgery:
    return lambda forged: forged.header["lineages"][0].update(changes)


def _set(**changes: Any) -> Forgery:
    def forge(forged: Forged) -> None:
        for name, value in changes.items():
            setattr(forged, name, value)

    return forge


FORGERIES: dict[str, Forgery] = {
    "a segment twice": _duplicate,
    "a segment without what it builds on": _orphan,
    "a child before its parent": _child_first,
    "other words under the name": _other_words,
    "other numbers under the checksum": _swapped_data,
    "negative token ids": _negative,
    "fewer tokens than numbers": _fewer_tokens,
    "no tokens": _no_tokens,
    "a segment that starts elsewhere": _field(start=1),
    "a segment that starts before all": _field(start=-1),
    "a name that leaves the folder": _field(record_id="../../../etc/x"),
    "a parent that leaves the folder": _field(parent_id="../x"),
    "a segment of another model": _field(fingerprint="beef"),
    "an endless time": _field(created=float("inf")),
    "a time that is no number": _field(created=float("nan")),
    "an array of 2**40 tokens": _grown,
    "an array of another type": lambda forged: _array(forged, dtype="int32"),
    "an array of an unknown type": lambda forged: _array(forged, dtype="object"),
    "an array with a negative side": lambda forged: _array(forged, shape=[1, -2, 20, 16]),
    "an array out of place": lambda forged: _array(forged, offset=4096),
    "an array without checksums": lambda forged: _array(forged, checks=[]),
    "one more array": _another_array,
    "an array twice": _array_twice,
    "states of a class that the file chooses": _class("Path"),
    "states of another class of ours": _class("ArraysCache"),
    "a state of another length": _state(2, 10**9),
    "a state with an odd base": _state(3, 1),
    "a state with another window": _state(4, 10**6),
    "a state with other slack": _state(5, 0),
    "a state in another form": _state(0, {"$array": "kv.0.0"}),
    "states for some layers alone": _fewer_states,
    "more layers": _more_leaves,
    "meta that is no JSON": _field(meta="{"),
    "meta that is too deep": _field(meta='{"states":' + "[" * 200_000),
    "meta that is a list": _field(meta="[]"),
    "a label that is no JSON": _field(kind="{"),
    "a label with unknown fields": _label(more=1),
    "a label with a word for a truth": _label(is_main="yes"),
    "a prefix whose name a terminal obeys": _label(stable_digest="\x1b]0;x\x07"),
    "a prefix under another's name": _label(stable_digest="0" * 12),
    "a conversation whose name a terminal obeys": _named(session_id="\x1b[2J"),
    "a conversation with a long name": _named(agent_id="a" * 257),
    "a conversation of no time": _named(last_use=float("nan")),
    "a conversation with an unknown field": _named(more=1),
    "a header with an unknown field": _head(more=1),
    "conversations that are none": _head(lineages=[1]),
    "fewer segments than it says": _set(count=99),
    "more segments than it says": _set(count=0),
    "something after the end": _set(tail=b"x"),
    "a segment longer than the file": _set(lengths={0: 2**63}),
    "a segment shorter than its header": _set(lengths={0: 16}),
    "a segment longer than it is": _set(lengths={0: 2**12}),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_no_forged_file_is_taken(
    engine: Bench, sound: Path, tmp_path: Path, forgery: Forgery
) -> None:
    """Each lie is told with checksums that fit, and is seen."""
    forged = Forged.read(sound)
    forgery(forged)
    forged.write(tmp_path / "forged")
    assert (tmp_path / "forged").read_bytes() != sound.read_bytes()
    error = refused(engine, tmp_path / "forged")
    assert error.fault is Fault.DAMAGED
    assert "\x1b" not in str(error)


def test_another_models_file_is_named(engine: Bench, sound: Path, tmp_path: Path) -> None:
    """Sound and not for here: both fingerprints and the other model are told."""
    forged = Forged.read(sound)
    forged.header |= {"fingerprint": "beef", "model": "other\x1b"}
    forged.write(tmp_path / "other")
    error = refused(engine, tmp_path / "other")
    assert error.fault is Fault.REFUSED
    assert all(word in str(error) for word in ("beef", FINGERPRINT, "other\\x1b"))


@pytest.mark.parametrize("version", [0, 2, 77])
def test_another_format_is_named(engine: Bench, sound: Path, tmp_path: Path, version: int) -> None:
    """Older or newer, it is refused as such."""
    content = bytearray(sound.read_bytes())
    content[8:12] = struct.pack("<I", version)
    (tmp_path / "version").write_bytes(content)
    error = refused(engine, tmp_path / "version")
    assert error.fault is Fault.REFUSED
    assert f"format {version}" in str(error)


def test_bounds_are_held(engine: Bench, sound: Path, tmp_path: Path) -> None:
    """Headers and numbers of segments past the bounds are refused before they are read."""
    for bounds in (
        replace(BOUNDS, segments=1),
        replace(BOUNDS, header_bytes=16),
        replace(BOUNDS, record_header_bytes=1024),
        replace(BOUNDS, all_headers_bytes=6000),
    ):
        assert refused(engine, sound, bounds).fault is Fault.DAMAGED
    content = bytearray(sound.read_bytes())
    content[12:16] = struct.pack("<I", 2**32 - 1)
    (tmp_path / "huge").write_bytes(content)
    assert "4294967295" in str(refused(engine, tmp_path / "huge"))


def test_a_file_of_holes_costs_nothing(engine: Bench, sound: Path, tmp_path: Path) -> None:
    """A terabyte that takes no room on disk is refused without being read."""
    content = sound.read_bytes()
    forged = Forged.read(sound)
    forged.lengths = {0: 2**40}
    path = tmp_path / "holes"
    forged.write(path)
    with path.open("r+b") as file:
        file.truncate(2**40 + len(content))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(engine, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_only_plain_files_are_read(engine: Bench, tmp_path: Path) -> None:
    """A pipe nobody writes to, a folder, a device, nothing: each is refused at once."""
    os.mkfifo(tmp_path / "pipe")
    for path, fault in (
        (tmp_path / "pipe", Fault.DAMAGED),
        (tmp_path, Fault.DAMAGED),
        (Path("/dev/zero"), Fault.DAMAGED),
        (tmp_path / "none", Fault.MISSING),
    ):
        assert refused(engine, path).fault is fault


def test_a_file_that_changes_meanwhile(sound: Path, tmp_path: Path) -> None:
    """Changed after it was verified: what is wrong is not taken, what came before it is right."""
    path = tmp_path / "changing"
    path.write_bytes(sound.read_bytes())
    other = bench(tiny.Family.SLIDING)
    mold = other.engine.mold()
    assert mold is not None
    with opened(path, FINGERPRINT) as reader:
        incoming = Incoming(other.engine.store, reader, reader.contents(mold), 1.0)
        assert incoming.step()
        with path.open("r+b") as file:
            file.seek(incoming.contents.entries[1].at + 5000)
            file.write(b"changed")
        with pytest.raises(ExchangeError, match="imported before is sound and stays"):
            incoming.step()
    assert incoming.brought.segments == 1
    run = other.engine.verification(0)
    while run.step():
        pass
    assert (run.findings.segments, run.findings.wrong) == (1, [])


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk refuses in the middle, nothing is left of the new file."""
    origin = bench(tiny.Family.DENSE)
    origin.start(words(random.Random(1), 60), "s").answer()
    path = tmp_path / "caches"
    export(origin, path)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    outgoing = Outgoing.of(origin.engine.store, FINGERPRINT, Choice())
    with pytest.raises(ExchangeError, match="--force") as there:
        ExportWriter(path, outgoing.header("model", 1.0), overwrite=False)
    assert there.value.fault is Fault.REFUSED

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreparedRecord, "write_into", full)
    writer = ExportWriter(path, outgoing.header("model", 1.0), overwrite=True)
    job = outgoing.step()
    assert job is not None
    with pytest.raises(OSError, match="No space"):
        writer.add(job.prepare())
    writer.abandon()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_export_left_goes_with_the_next(tmp_path: Path) -> None:
    """Only that: another one that runs keeps its file, and both come to their end."""
    origin = bench(tiny.Family.DENSE)
    origin.start(words(random.Random(1), 60), "s").answer()
    outgoing = Outgoing.of(origin.engine.store, FINGERPRINT, Choice())
    header = outgoing.header("model", 1.0)
    left = tmp_path / ".anyclaude-export-left"
    left.write_bytes(b"half")
    first = ExportWriter(tmp_path / "first", header, overwrite=False)
    second = ExportWriter(tmp_path / "second", header, overwrite=False)
    assert not left.exists()
    assert first.finish() == second.finish() > 0
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}
