"""The child's side of the protocol with the daemon: its birth line, its notices, its end."""

import gc
import os
import threading
from pathlib import Path

from anyclaude.runtime.child import Birth, Child, watch_end_of
from anyclaude.runtime.paths import find_paths
from anyclaude.runtime.settings import Settings

BIRTH = Birth(
    name="mlx",
    generation=3,
    socket_path=Path("/tmp/x/mlx-3.sock"),
    paths=find_paths({"ANYCLAUDE_HOME": "/tmp/x"}),
    settings=Settings(),
    listen_fd=7,
)


def test_a_birth_survives_its_line():
    """The child reads from one line what the daemon wrote."""
    line = BIRTH.to_json()
    assert "\n" not in line
    assert Birth.from_json(line) == BIRTH


def test_garbage_collection_leaves_out_the_objects_of_the_start():
    """A full collection stops every stream, so it traverses only what requests have made."""
    source, sink = os.pipe()
    gc.disable()
    try:
        Child(BIRTH, sink).ready({"model": "m"})
        assert gc.get_freeze_count() > 1000
        assert gc.isenabled()
        assert os.read(source, 100) == b'{"ready": {"model": "m"}}\n'
    finally:
        gc.enable()
        gc.unfreeze()
        os.close(source)
        os.close(sink)


def test_the_end_of_the_pipe_is_noticed():
    """The end of stdin calls `on_end`, and bytes on it do not."""
    gone = threading.Event()
    source, sink = os.pipe()
    watch_end_of(source, gone.set)
    os.write(sink, b"\n")
    assert not gone.is_set()
    os.close(sink)
    assert gone.wait(10)
    os.close(source)
