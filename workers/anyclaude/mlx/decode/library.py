"""The one door of this package to mlx-lm, whose API moves between minor releases."""

from copy import copy

from mlx_lm.sample_utils import make_sampler as library_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

__all__ = ["TokenizerWrapper", "library_sampler", "parser_family", "tokenizer_json"]


def parser_family(tokenizer: TokenizerWrapper) -> str:
    """The name of the tool parser that mlx-lm chose, such as "qwen3_coder"."""
    return str(tokenizer.tool_parser.__module__).rpartition(".")[2]


def tokenizer_json(tokenizer: TokenizerWrapper) -> str:
    """The tokenizer as `tokenizers` writes it, without padding and truncation.

    Raises:
        AttributeError: it is not one of that library.
    """
    backend = copy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    return str(backend.to_str())
