"""The one door of this package to mlx-lm, whose API moves between minor releases."""

from mlx_lm.sample_utils import make_sampler as library_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

__all__ = ["TokenizerWrapper", "library_sampler"]
