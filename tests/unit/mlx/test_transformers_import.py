"""Importing transformers through the adapter reads each module once, and finds the same names."""

import subprocess
import sys

# In a process of its own, since other tests import transformers without the adapter.
PROGRAM = """
import anyclaude.mlx.adapter
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
import transformers
from transformers.utils import import_utils as ours

spec = PathFinder.find_spec(ours.__name__, transformers.utils.__path__)
theirs = module_from_spec(spec)
spec.loader.exec_module(theirs)
models = transformers.models.__path__[0]
cache = ours.create_import_structure_from_path.cache_info()
print(cache.hits > 0, cache.misses == cache.currsize)
print(ours.define_import_structure(models) == theirs.define_import_structure(models))
"""


def test_transformers_is_read_once_and_nothing_of_it_is_lost() -> None:
    """Its own functions, unchanged, find the same names as those that read less."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["True"] * 3
