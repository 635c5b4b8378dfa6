"""What mlx-lm does with the model by itself, in a process of its own, as one JSON document.

    python -m tools.mac_check.mlx_side MODEL

A process of its own: the model must not lie in memory twice while the service is measured.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tools.mac_check.requests import LONG_ANSWER_TOKENS, STORY

PREFILL_TOKENS: Final = 4_096
CHUNKS: Final = (512, 2_048)
_SECONDS: Final = 1_800


def measure(model: Path) -> dict[str, Any]:
    """Runs this module as a process and returns its figures."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(model)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=True,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def figures_of(model: Path) -> dict[str, Any]:
    """Loads the model and measures it; the first run of each kind warms up and does not count."""
    import mlx.core as mx
    import mlx_lm
    from mlx_lm.generate import stream_generate

    loaded: tuple[Any, Any] = mlx_lm.load(str(model))[:2]
    network, tokenizer = loaded
    after_load = memory(mx)

    def last(prompt: list[int], **options: Any) -> Any:
        *_, response = stream_generate(network, tokenizer, prompt, **options)
        return response

    long = (tokenizer.encode(STORY) * PREFILL_TOKENS)[:PREFILL_TOKENS]
    prefill = {}
    for chunk in CHUNKS:
        options = {"max_tokens": 1, "prefill_step_size": chunk}
        last(long, **options)
        prefill[str(chunk)] = last(long, **options).prompt_tps
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": STORY}], add_generation_prompt=True
    )
    last(chat, max_tokens=16)
    answer = last(chat, max_tokens=LONG_ANSWER_TOKENS)
    return {
        "memory": after_load | {"peak_bytes": mx.get_peak_memory()},
        "prefill_tokens_per_second": prefill,
        "decode_tokens_per_second": answer.generation_tps,
        "decode_tokens": answer.generation_tokens,
    }


def memory(mx: Any) -> dict[str, Any]:
    """MLX's own figures, with the GPU's limits where there is a GPU."""
    figures = {"active_bytes": mx.get_active_memory(), "cache_bytes": mx.get_cache_memory()}
    if mx.metal.is_available():
        info = mx.device_info()
        names = ("max_recommended_working_set_size", "max_buffer_length", "memory_size")
        figures |= {name: info[name] for name in names if name in info}
    return figures


if __name__ == "__main__":
    print(json.dumps(figures_of(Path(sys.argv[1]))))
