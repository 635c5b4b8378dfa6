"""The real Qwen3 vocabulary for measurements, where the material of tests/real is at hand."""

import os
from pathlib import Path

from anyclaude.mlx.adapter import TokenizerWrapper
from tests.real.families import FAMILIES, load
from tests.real.weights import VARIABLE


def real_qwen3() -> TokenizerWrapper | None:
    """Qwen3's tokenizer and chat template; None if `ANYCLAUDE_TEST_MATERIAL` has none."""
    folder = Path(os.environ.get(VARIABLE, ""))
    needed = (folder / "tokenizers" / "qwen3", folder / "templates")
    if VARIABLE not in os.environ or not all(path.is_dir() for path in needed):
        return None
    family = next(one for one in FAMILIES if one.template.startswith("Qwen-Qwen3-"))
    return load(folder, family, streams=True)
