"""The one door of this package to mlx-lm, whose API moves between minor releases."""

from mlx_lm.sample_utils import make_sampler as library_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

__all__ = ["TokenizerWrapper", "library_sampler", "parser_family"]


def parser_family(tokenizer: TokenizerWrapper) -> str:
    """The name of the tool parser that mlx-lm chose, such as "qwen3_coder"."""
    return str(tokenizer.tool_parser.__module__).rpartition(".")[2]
