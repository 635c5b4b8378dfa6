"""Rebuild the demo model: `python -m tools.demo_model.build [--out DIR]`.

Trains the tokenizer and the network on the text of Python's standard library, and writes an
ordinary model folder. Nothing is downloaded. The work is matrix products: on Linux, where MLX
multiplies on the CPU without a tuned library, 1,800 steps take more than an hour.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from tokenizers import Tokenizer

from anyclaude.mlx.demo import MODEL_PATH
from tools.demo_model import corpus, vocabulary
from tools.demo_model.network import CONTEXT_TOKENS, Network, config
from tools.demo_model.sequences import Sequences
from tools.demo_model.train import train
from tools.demo_model.words import PAD, TURN_END

TEMPLATE = Path(__file__).resolve().parent / "chat_template.jinja"


def build(out: Path, steps: int, seed: int) -> None:
    """Train with `seed` for `steps` steps and write the model folder `out`."""
    rng = np.random.default_rng(seed)
    texts = corpus.texts()
    tokenizer = vocabulary.train(texts)
    words = vocabulary.Vocabulary.of(tokenizer, texts)
    started = time.monotonic()

    def report(step: int, loss: float) -> None:
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss:.5f} {time.monotonic() - started:.0f} s", flush=True)

    network = train(Sequences(words, rng), rng, steps, report)
    write(out, tokenizer, network)


def write(out: Path, tokenizer: Tokenizer, network: Network) -> None:
    """Write every file that mlx-lm reads from a model folder."""
    out.mkdir(parents=True, exist_ok=True)
    end_id, pad_id = (tokenizer.get_vocab()[text] for text in (TURN_END, PAD))
    weights = dict(tree_flatten(network.parameters()))
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    shutil.copyfile(TEMPLATE, out / "chat_template.jinja")
    _write_json(out / "config.json", config(end_id, pad_id))
    _write_json(out / "generation_config.json", {"eos_token_id": [end_id], "do_sample": False})
    _write_json(out / "tokenizer_config.json", _tokenizer_config())


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": TURN_END,
        "pad_token": PAD,
        "model_max_length": CONTEXT_TOKENS,
        "clean_up_tokenization_spaces": False,
    }


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Rebuild the embedded demo model.")
    parser.add_argument("--out", type=Path, default=MODEL_PATH, help="model folder to write")
    parser.add_argument("--steps", type=int, default=1800, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and sequences")
    return parser.parse_args()


if __name__ == "__main__":
    _options = _arguments()
    build(_options.out, _options.steps, _options.seed)
