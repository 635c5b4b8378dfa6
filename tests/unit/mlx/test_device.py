"""Where the tests of this folder compute."""

import mlx.core as mx

from anyclaude.mlx.adapter import MLX_VERSIONS


def test_tests_of_bits_run_on_the_cpu() -> None:
    """The default device is the CPU on every system, and the worker's modules saw it so."""
    assert mx.default_device() == mx.Device(mx.cpu)
    assert MLX_VERSIONS[-1] == str(mx.Device(mx.cpu))
