"""What the MLX worker calls the library with which it computes on a CPU, for those who show it."""

from typing import Final

# That of MLX's wheel for Linux, which is slow.
REFERENCE_BLAS: Final = "reference BLAS"
