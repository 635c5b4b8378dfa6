"""Compares a verified restore from the disk tier with MLX's own loader on the same bytes.

Both read from the page cache, in turns; peak memory is measured in a separate process.
Usage: python -m benchmarks.disk [GIGABYTES] [--folder FOLDER], by default the 1.8 GB that 18,490
tokens of a 30B model take; 0.05 shows that it works, but is too small for the bounds.
"""

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np

from anyclaude.mlx.kv_disk import Bounds, DiskTier, Segment

LAYERS = 48
HEADS, HEAD_SIZE = 4, 128
ROUNDS = 7
MAX_RATIO = 2.0
MAX_PEAK = 1.2
RECORD_ID = "0badcafe"
# Below this size, the fixed cost of a restore dominates.
MIN_BYTES_FOR_BOUNDS = 500_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gigabytes", type=float, nargs="?", default=1.8175)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(json.dumps(_peak(arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure(Path(folder), int(arguments.gigabytes * 1e9))


def measure(folder: Path, wanted_bytes: int) -> None:
    tokens = max(1, wanted_bytes // (2 * LAYERS * HEADS * HEAD_SIZE * 2))
    arrays = _random_arrays(tokens)
    nbytes = sum(array.nbytes for array in arrays.values())
    plain = folder / "plain.safetensors"
    mx.save_safetensors(str(plain), arrays)
    written = _save(folder, arrays, tokens)
    del arrays
    _free()
    ratio, loaded, restored = _compare(folder, plain)
    peak = json.loads(
        subprocess.run(
            [sys.executable, "-m", "benchmarks.disk", "--folder", str(folder), "--peak"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    print(f"record of {tokens} tokens, {nbytes / 1e9:.3f} GB, {2 * LAYERS} arrays")
    print(f"written, summed and synced: {written:.2f} s ({nbytes / 1e9 / written:.2f} GB/s)")
    print(f"mx.load and evaluation:     {loaded:.3f} s (median of {ROUNDS})")
    print(f"restored and verified:      {restored:.3f} s (median of {ROUNDS})")
    print(
        f"ratio:                      {ratio:.2f} (median of {ROUNDS} pairs; at most {MAX_RATIO})"
    )
    print(f"peak of MLX's memory:       {peak['mlx'] / nbytes:.3f} of the record's bytes")
    print(f"peak of the process:        {peak['process'] / nbytes:.3f} (at most {MAX_PEAK})")
    missed = ratio > MAX_RATIO or peak["process"] > MAX_PEAK * nbytes
    if missed and nbytes >= MIN_BYTES_FOR_BOUNDS:
        raise SystemExit("missed: the ratio or the peak is above its bound")


def _random_arrays(tokens: int) -> dict[str, mx.array]:
    # Numpy makes the numbers: MLX's generator needs several times the memory on the CPU.
    random = np.random.default_rng(18490)
    shape = (1, HEADS, tokens, HEAD_SIZE)
    arrays = {}
    for layer in range(LAYERS):
        for part in ("keys", "values"):
            bits = mx.array(random.integers(0, 2**16, shape, dtype=np.uint16))
            arrays[f"{layer}.{part}"] = bits.view(mx.bfloat16)
            mx.eval(arrays[f"{layer}.{part}"])
    return arrays


def _save(folder: Path, arrays: dict[str, mx.array], tokens: int) -> float:
    ids = np.arange(tokens, dtype=np.int32)
    segment = Segment(RECORD_ID, "", 0, ids, arrays, {}, "benchmark", "", pinned=True)
    tier = _tier(folder)
    began = time.perf_counter()
    tier.save(segment)
    tier.flush()
    if not tier.status().written:
        raise SystemExit(f"not written: {tier.status().last_error}")
    taken = time.perf_counter() - began
    tier.close()
    return taken


def _compare(folder: Path, plain: Path) -> tuple[float, float, float]:
    """Median ratio of pairs that follow each other, and both medians in seconds."""
    tier = _tier(folder)

    def load() -> None:
        arrays = mx.load(str(plain))
        assert isinstance(arrays, dict)
        mx.eval(*arrays.values())

    def restore() -> None:
        if tier.load(RECORD_ID) is None:
            raise SystemExit(f"not restored: {tier.status().last_error}")

    # The first reads fill the page cache.
    _timed(load), _timed(restore)
    pairs = [(_timed(load), _timed(restore)) for _ in range(ROUNDS)]
    tier.close()
    ratio = statistics.median(restored / loaded for loaded, restored in pairs)
    loaded, restored = (statistics.median(times) for times in zip(*pairs, strict=True))
    return ratio, loaded, restored


def _timed(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    taken = time.perf_counter() - began
    _free()
    return taken


def _free() -> None:
    gc.collect()
    mx.clear_cache()


def _peak(folder: Path) -> dict[str, int]:
    """The memory that a restore adds to this process, as MLX and as the system count it."""
    tier = _tier(folder)
    before = _resident_bytes()
    mx.reset_peak_memory()
    assert tier.load(RECORD_ID) is not None
    peak = {"mlx": mx.get_peak_memory(), "process": _resident_bytes() - before}
    tier.close()
    return peak


def _resident_bytes() -> int:
    """This process's peak memory; Linux's getrusage would include its parent's."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _tier(folder: Path) -> DiskTier:
    bounds = Bounds(min_free_bytes=0)
    return DiskTier(folder / "records", "benchmark", 64 * 1024**3, bounds=bounds)


if __name__ == "__main__":
    main()
