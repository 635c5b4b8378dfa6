"""The embedded demo model: a few megabytes that let everything run with no download.

`MODEL_PATH` is an ordinary mlx-lm model folder (Qwen3 architecture, safetensors, tokenizer,
chat template, no code of its own). The model answers in words that it is a demo and how to
configure a real one; when a tool named `Bash` is offered it calls it once, harmlessly.
`python -m tools.demo_model.build` rebuilds the folder; nothing else here is needed
at run time.
"""

from pathlib import Path

MODEL_PATH = Path(__file__).resolve().parent / "model"
