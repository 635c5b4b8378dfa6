"""Export files that were damaged or forged: refused as a whole, and nothing is imported."""

import json
import os
import random
import resource
import tarfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from anyclaude.cache.v1 import cache_pb2 as pb
from anyclaude.mlx.kv_disk import export_file
from anyclaude.mlx.kv_disk.export_file import ExchangeError, ExportWriter, Fault
from anyclaude.mlx.kv_disk.import_file import ReadBounds, opened
from anyclaude.mlx.kv_disk.incoming import Incoming
from anyclaude.mlx.kv_disk.outgoing import Outgoing
from anyclaude.mlx.kv_disk.records import SegmentShape
from tests.figures import FIGURES, RecordProperty
from tests.models import tiny
from tests.unit.mlx.kv.kv_engine import Bench, bench, words
from tests.unit.mlx.kv_disk.forged_export import (
    BOUNDS,
    RECORD_SEAL,
    Forged,
    ForgedRecord,
    Forgery,
    Member,
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
    """The engine that imports the files; it stays empty."""
    return bench(tiny.Family.SLIDING)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound file: a prefix, and two segments of a conversation with saved states."""
    path = tmp_path_factory.mktemp("export") / "caches"
    origin = bench(tiny.Family.SLIDING)
    origin.start(words(random.Random(1), 60), "s", stable=20).answer()
    export(origin, path)
    return path


@cache
def segment_shape() -> SegmentShape:
    """The shape of segments of the model that all files here are for."""
    shape = bench(tiny.Family.SLIDING).segment_shape()
    assert shape is not None
    return shape


def refused(engine: Bench, path: Path, bounds: ReadBounds = BOUNDS) -> ExchangeError:
    """The error of importing `path`, which must leave the caches as they are."""
    with pytest.raises(ExchangeError) as error, opened(path, FINGERPRINT, bounds) as reader:
        reader.contents(segment_shape())
    assert list(engine.engine.store.tree.nodes()) == []
    assert str(path) in str(error.value)
    return error.value


def test_a_file_that_is_split_and_joined_is_accepted(
    engine: Bench, sound: Path, tmp_path: Path
) -> None:
    """A file that is split and joined again is the same, and is accepted."""
    forged = Forged.read(sound)
    forged.write(tmp_path / "same")
    assert (tmp_path / "same").read_bytes() == sound.read_bytes()
    assert len(forged.records) >= 3
    with opened(tmp_path / "same", FINGERPRINT) as reader:
        assert len(reader.contents(segment_shape()).entries) == len(forged.records)


def test_no_truncated_file_is_imported(
    engine: Bench, sound: Path, tmp_path: Path, record_property: RecordProperty
) -> None:
    """Files cut at every block, within the first header, and one byte short are refused."""
    whole = sound.read_bytes()
    lengths = {0, 1, 8, *range(len(whole) - 1, len(whole) - 1100, -64)}
    lengths |= set(range(0, len(whole), 512))
    for length in lengths:
        (tmp_path / "cut").write_bytes(whole[:length])
        assert refused(engine, tmp_path / "cut").fault is Fault.DAMAGED
    record_property(
        FIGURES, f"export of {len(whole)} bytes cut at {len(lengths)} places: 0 imported"
    )


def test_no_flipped_bit_is_imported(
    engine: Bench, sound: Path, tmp_path: Path, record_property: RecordProperty
) -> None:
    """Each of 1,000 random bit flips, anywhere in the file, is refused."""
    whole, dice = sound.read_bytes(), random.Random(SEED)
    for _ in range(FLIPS):
        bit = dice.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "flipped").write_bytes(flipped)
        refused(engine, tmp_path / "flipped")
    record_property(
        FIGURES,
        f"bit flips in an export of {len(whole)} bytes, seed {SEED}: {FLIPS}, 0 imported",
    )


def _duplicate(forged: Forged) -> None:
    forged.records.append(forged.records[-1])


def _orphan(forged: Forged) -> None:
    del forged.records[0]


def _child_first(forged: Forged) -> None:
    forged.records[:2] = forged.records[1::-1]


def _other_words(forged: Forged) -> None:
    retold(forged.records[0], tokens_of(forged.records[0])[::-1])


def _swapped_data(forged: Forged) -> None:
    forged.records[0].data = forged.records[0].data[::-1]


def _negative(forged: Forged) -> None:
    renamed(forged.records[0], [], [-1, *tokens_of(forged.records[0])[1:]])


def _fewer_tokens(forged: Forged) -> None:
    renamed(forged.records[0], [], tokens_of(forged.records[0])[:-1])


def _no_tokens(forged: Forged) -> None:
    renamed(forged.records[0], [], [])


def _array(forged: Forged, **changes: Any) -> None:
    next(iter(forged.records[0].arrays.values())).update(changes)


def _grown(forged: Forged) -> None:
    shape = next(iter(forged.records[0].arrays.values()))["shape"]
    _array(forged, shape=[*shape[:2], 2**40, shape[3]])


def _another_array(forged: Forged) -> None:
    end = len(forged.records[0].data)
    more = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
    forged.records[0].header["more"] = more


def _array_twice(forged: Forged) -> None:
    """Adds a second entry of one name: parsers differ in which of them they read."""

    def change(members: list[Member]) -> None:
        head, data = members[1].content, forged.records[0].data
        text = head[8 : len(head) - len(data)].rstrip(b" ")
        entry = text[text.index(b',"kv.0.0"') : text.index(b',"kv.0.1"')]
        text = RECORD_SEAL.close((text[:-1] + entry + b"}").ljust(len(text) + 96))
        members[1].content = len(text).to_bytes(8, "little") + text + data

    forged.change = change


def _spaced(forged: Forged) -> None:
    def change(members: list[Member]) -> None:
        text = json.dumps(forged.records[0].header).replace(": ", ":", 3).replace(", ", ",", 1)
        raw = RECORD_SEAL.close(text.encode())
        members[1].content = len(raw).to_bytes(8, "little") + raw + forged.records[0].data

    forged.change = change


def _states_of(forged: Forged) -> ForgedRecord:
    return next(record for record in forged.records if "WindowKVCache" in record.metadata["meta"])


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
    return lambda forged: forged.records[0].metadata.update(changes)


def _member(number: int = 1, **changes: Any) -> Forgery:
    """Changes a member of the tar file."""

    def forge(forged: Forged) -> None:
        def change(members: list[Member]) -> None:
            for name, value in changes.items():
                setattr(members[number], name, value)

        forged.change = change

    return forge


def _of_type(kind: bytes, number: int = 1, **more: Any) -> Forgery:
    """Makes a member something other than a file."""

    def forge(forged: Forged) -> None:
        def change(members: list[Member]) -> None:
            member = members[number]
            other = tarfile.TarInfo(more.get("name", member.name))
            other.type, other.mode, other.linkname = kind, member.mode, "/etc/passwd"
            other.size = len(member.content)
            member.header = other.tobuf(more.get("format", tarfile.GNU_FORMAT))

        forged.change = change

    return forge


def _swapped_members(forged: Forged) -> None:
    forged.change = lambda members: members.reverse()


def _second_manifest(forged: Forged) -> None:
    forged.change = lambda members: members.append(members[0])


def _no_manifest(forged: Forged) -> None:
    forged.change = lambda members: members.pop(0)  # type: ignore[assignment, return-value]


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


def _negative_size() -> bytes:
    header = tarfile.TarInfo("0" * 32 + ".safetensors")
    header.size = -512
    return header.tobuf(tarfile.GNU_FORMAT)


FORGERIES: dict[str, Forgery] = {
    "a segment twice": _duplicate,
    "a segment without what it builds on": _orphan,
    "a child before its parent": _child_first,
    "other words under the name": _other_words,
    "other numbers under the checksum": _swapped_data,
    "negative token ids": _negative,
    "fewer tokens than numbers": _fewer_tokens,
    "no tokens": _no_tokens,
    "a segment that starts elsewhere": _field(start="1"),
    "a segment that starts before all": _field(start="-1"),
    "a start that is no number": _field(start="x"),
    "a start that is not text": _field(start=0),
    "a field more": _field(more="x"),
    "a name that leaves the folder": _field(record_id="../../../etc/x"),
    "a parent that leaves the folder": _field(parent_id="../x"),
    "a segment of another model": _field(fingerprint="beef"),
    "an endless time": _field(created="inf"),
    "a time that is no number": _field(created="nan"),
    "an array of 2**40 tokens": _grown,
    "an array of another type": lambda forged: _array(forged, dtype="I32"),
    "an array of an unknown type": lambda forged: _array(forged, dtype="object"),
    "an array with a negative side": lambda forged: _array(forged, shape=[1, -2, 20, 16]),
    "an array out of place": lambda forged: _array(forged, data_offsets=[8, 4096]),
    "an array whose shape is no list": lambda forged: _array(forged, shape={}),
    "an array whose sides are no integers": lambda forged: _array(forged, shape=[1, 2.0, 20, 16]),
    "an array with an unknown field": lambda forged: _array(forged, more=1),
    "arrays without checksums": _field(data_checksums=""),
    "arrays of another size": _field(data_bytes="7"),
    "arrays of no size": _field(data_bytes="-1"),
    "a header with spaces": _spaced,
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
    "something after the end": _set(tail=b"x"),
    "a block of zeros after the end": _set(tail=bytes(512)),
    "a member longer than the file": _member(nbytes=2**62),
    "a member of less than nothing": _member(header=_negative_size()),
    "a member shorter than its header": _member(nbytes=16),
    "a member longer than it is": _member(nbytes=2**12),
    "a member of another name": _member(name="0" * 32 + ".safetensors"),
    "a member that leaves the folder": _member(name="../../x.safetensors"),
    "a member with an absolute name": _member(name="/etc/x.safetensors"),
    "a member with a long name": _member(name="a" * 300),
    "a member whose name a terminal obeys": _member(name="\x1b[2J"),
    "a member that anyone may read": _member(mode=0o644),
    "a member that changes its user": _member(mode=0o4600),
    "a symbolic link": _of_type(tarfile.SYMTYPE),
    "a hard link": _of_type(tarfile.LNKTYPE),
    "a device": _of_type(tarfile.CHRTYPE),
    "a pipe": _of_type(tarfile.FIFOTYPE),
    "a folder": _of_type(tarfile.DIRTYPE),
    "a sparse file": _of_type(tarfile.GNUTYPE_SPARSE),
    "an extended header": _of_type(tarfile.XHDTYPE, format=tarfile.PAX_FORMAT),
    "a manifest that is a link": _of_type(tarfile.SYMTYPE, number=0),
    "no manifest": _no_manifest,
    "a manifest at the end": _swapped_members,
    "a second manifest": _second_manifest,
    "a manifest of another name": _member(number=0, name="x"),
    "a manifest longer than the bounds": _member(number=0, nbytes=2**40),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_no_forged_file_is_imported(
    engine: Bench, sound: Path, tmp_path: Path, forgery: Forgery
) -> None:
    """Each wrong value is refused although its checksums match."""
    forged = Forged.read(sound)
    forgery(forged)
    forged.write(tmp_path / "forged")
    assert (tmp_path / "forged").read_bytes() != sound.read_bytes()
    error = refused(engine, tmp_path / "forged")
    assert error.fault is Fault.DAMAGED
    assert "\x1b" not in str(error)


def test_another_models_file_is_named(engine: Bench, sound: Path, tmp_path: Path) -> None:
    """A sound file of another model is refused with both fingerprints and that model's name."""
    forged = Forged.read(sound)
    forged.header |= {"fingerprint": "beef", "model": "other\x1b"}
    forged.write(tmp_path / "other")
    error = refused(engine, tmp_path / "other")
    assert error.fault is Fault.REFUSED
    assert all(word in str(error) for word in ("beef", FINGERPRINT, "other\\x1b"))


@pytest.mark.parametrize("version", [0, 1, 3, 77])
def test_another_format_is_named(engine: Bench, sound: Path, tmp_path: Path, version: int) -> None:
    """A file of an older or newer format is refused as such."""
    forged = Forged.read(sound)
    text = json.dumps(forged.header, separators=(",", ":")).encode()
    text = text.replace(b"anyclaude-export-2", b"anyclaude-export-%d" % version)
    _member(number=0, content=text)(forged)
    forged.write(tmp_path / "version")
    error = refused(engine, tmp_path / "version")
    assert error.fault is Fault.REFUSED
    assert f"format {version}" in str(error)


def test_the_first_format_is_named(engine: Bench, tmp_path: Path) -> None:
    """An export of the version before this one is refused as such, not as damaged."""
    (tmp_path / "old").write_bytes(b"ACKVEXP\n" + bytes(1000))
    error = refused(engine, tmp_path / "old")
    assert error.fault is Fault.REFUSED
    assert "format 1" in str(error)


def test_limits_are_enforced(engine: Bench, sound: Path, tmp_path: Path) -> None:
    """Headers and numbers of segments beyond the limits are refused before they are read."""
    for bounds in (
        replace(BOUNDS, segments=1),
        replace(BOUNDS, manifest_bytes=16),
        replace(BOUNDS, record_head_bytes=1024),
        replace(BOUNDS, all_heads_bytes=2000),
    ):
        assert refused(engine, sound, bounds).fault is Fault.DAMAGED
    forged = Forged.read(sound)
    huge = (2**32 - 8).to_bytes(8, "little") + forged.records[0].to_bytes()[8:]
    _member(content=huge, nbytes=2**40)(forged)
    forged.write(tmp_path / "huge")
    with (tmp_path / "huge").open("r+b") as file:
        file.truncate(2**41)
    assert "4294967296" in str(refused(engine, tmp_path / "huge"))


def test_a_sparse_file_is_refused_unread(engine: Bench, sound: Path, tmp_path: Path) -> None:
    """A sparse file of a terabyte is refused without being read."""
    content = sound.read_bytes()
    forged = Forged.read(sound)
    _member(nbytes=2**40)(forged)
    path = tmp_path / "holes"
    forged.write(path)
    with path.open("r+b") as file:
        file.truncate(2**40 + len(content))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(engine, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_only_plain_files_are_read(engine: Bench, tmp_path: Path) -> None:
    """A pipe, a folder, a device and a missing file are each refused at once."""
    os.mkfifo(tmp_path / "pipe")
    for path, fault in (
        (tmp_path / "pipe", Fault.DAMAGED),
        (tmp_path, Fault.DAMAGED),
        (Path("/dev/zero"), Fault.DAMAGED),
        (tmp_path / "none", Fault.MISSING),
    ):
        assert refused(engine, path).fault is fault


def test_a_file_that_changes_meanwhile(sound: Path, tmp_path: Path) -> None:
    """A file that changes after its verification: the wrong segment is not imported."""
    path = tmp_path / "changing"
    path.write_bytes(sound.read_bytes())
    other = bench(tiny.Family.SLIDING)
    with opened(path, FINGERPRINT) as reader:
        incoming = Incoming(other.engine.store, reader, reader.contents(segment_shape()), 1.0)
        assert incoming.step()
        with path.open("r+b") as file:
            file.seek(incoming.contents.entries[1].at + 5000)
            file.write(b"changed")
        with pytest.raises(ExchangeError, match="imported before is sound and stays"):
            incoming.step()
    assert incoming.imported.segments == 1
    run = other.engine.verification(0)
    while run.step():
        pass
    assert (run.findings.segments, run.findings.wrong) == (1, [])


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk refuses during an export, nothing is left of the new file."""
    origin = bench(tiny.Family.DENSE)
    origin.start(words(random.Random(1), 60), "s").answer()
    path = tmp_path / "caches"
    export(origin, path)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    outgoing = Outgoing.of(origin.engine.store, FINGERPRINT, pb.ExportCachesRequest())
    with pytest.raises(ExchangeError, match="--force") as there:
        ExportWriter(path, outgoing.manifest("model", 1.0), overwrite=False)
    assert there.value.fault is Fault.REFUSED

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = ExportWriter(path, outgoing.manifest("model", 1.0), overwrite=True)
    job = outgoing.step()
    assert job is not None
    monkeypatch.setattr(export_file, "write_all", full)
    with pytest.raises(OSError, match="No space"):
        writer.add(job)
    writer.abandon()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_next_export_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """The next export removes a killed one's file, but not that of a running one."""
    origin = bench(tiny.Family.DENSE)
    origin.start(words(random.Random(1), 60), "s").answer()
    outgoing = Outgoing.of(origin.engine.store, FINGERPRINT, pb.ExportCachesRequest())
    manifest = outgoing.manifest("model", 1.0)
    left = tmp_path / ".anyclaude-export-left"
    left.write_bytes(b"half")
    first = ExportWriter(tmp_path / "first", manifest, overwrite=False)
    second = ExportWriter(tmp_path / "second", manifest, overwrite=False)
    assert not left.exists()
    assert first.finish() == second.finish() > 0
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}
