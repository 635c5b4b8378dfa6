"""Finds the model on disk, loads it, and identifies it.

Nothing is ever downloaded. A model is a local folder, or a hub id that is already in the local hub
cache. If no model is configured, the embedded demo model is used.
"""

import errno
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from huggingface_hub import try_to_load_from_cache

from anyclaude.mlx.adapter import (
    LanguageModel,
    TokenizerWrapper,
    load_tokenizer_from,
    load_weights,
)
from anyclaude.mlx.demo import MODEL_PATH as DEMO_PATH
from anyclaude.runtime.settings import ModelSettings
from anyclaude.worker.v1.worker_pb2 import ModelInfo

DEFAULT_WINDOW_TOKENS: Final = 32_768
# The length of each of the three samples of a weights file; a fine-tune changes all of them.
SAMPLE_BYTES: Final = 65_536
_TEXT_FILES: Final = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
)


# What mlx-lm raises for a folder that it cannot load.
LOAD_ERRORS: Final = (FileNotFoundError, ValueError, KeyError, RuntimeError)


class ModelMissingError(Exception):
    """The configured model does not exist or cannot be loaded. The message says what to do."""


@dataclass(frozen=True)
class SamplingDefaults:
    """Sampling parameters for requests that do not set them."""

    temperature: float
    top_p: float | None
    top_k: int | None
    min_p: float | None = None


@dataclass(frozen=True)
class Model:
    """Weights, config and identity. Each thread needs its own tokenizer, from `new_tokenizer`."""

    folder: Path
    weights: LanguageModel
    config: Mapping[str, Any]
    info: ModelInfo
    sampling: SamplingDefaults

    def new_tokenizer(self) -> TokenizerWrapper:
        return load_tokenizer_from(self.folder, self.config)


def find_folder(path: str) -> Path:
    """The folder that the `model.path` setting names, every file of the model readable.

    Raises:
        ModelMissingError: there is no model, or this process may not read it.
    """
    try:
        folder = _find(path)
        _check_readable(folder)
    except PermissionError as error:
        raise _unreadable(error) from error
    except OSError as error:
        # A link of the hub cache that leads nowhere, or a volume that is gone.
        raise ModelMissingError(
            f"The model at {path} is incomplete: {error.strerror}: {error.filename}. "
            "Download it again, or choose another with model.path (or ANYCLAUDE_MODEL)."
        ) from error
    return folder


def _find(path: str) -> Path:
    if not path:
        return DEMO_PATH
    local = Path(path).expanduser()
    if local.is_dir():
        if all(file.name != "config.json" for file in local.iterdir()):
            raise ModelMissingError(
                f"{local} holds no config.json, so it is no model folder. "
                "Set model.path (or ANYCLAUDE_MODEL) to a folder with config.json and weights."
            )
        return local
    if re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        cached = try_to_load_from_cache(path, "config.json")
        if isinstance(cached, str):
            return Path(cached).parent
    raise ModelMissingError(
        f"There is no model at {path}: it is neither a folder nor a model in the local hub cache. "
        "Set model.path (or ANYCLAUDE_MODEL) to a folder with config.json and weights, "
        "or leave it empty for the demo model."
    )


def _check_readable(folder: Path) -> None:
    """Opens what loading will need: libraries report "no file" where they may not look."""
    for file in folder.iterdir():
        if file.name in _TEXT_FILES or file.suffix == ".safetensors":
            file.open("rb").close()


def _unreadable(error: PermissionError) -> ModelMissingError:
    if error.errno == errno.EPERM:
        # The answer of macOS to a background process, whatever the mode of the file.
        advice = (
            "macOS protects Documents, Desktop, Downloads, iCloud Drive and other volumes: move "
            "the model to a folder such as ~/Models and set model.path to it, or allow "
            f"{sys.executable} in System Settings, Privacy & Security, Full Disk Access."
        )
    else:
        advice = (
            "Make it readable for the user of the service, and the folders above it: "
            f"`chmod -R u+rX {shlex.quote(str(error.filename))}`."
        )
    return ModelMissingError(
        f"The model cannot be read: {error.strerror}: {error.filename}. {advice} "
        "Then run `anyclaudectl worker restart mlx`."
    )


def load(settings: ModelSettings) -> Model:
    """Finds and loads the configured model.

    Raises:
        ModelMissingError: it does not exist, may not be read, or mlx-lm cannot load it.
    """
    folder = find_folder(settings.path)
    try:
        weights, config = load_weights(folder)
        tokenizer = load_tokenizer_from(folder, config)
    except PermissionError as error:
        raise _unreadable(error) from error
    except LOAD_ERRORS as error:
        raise cannot_load(folder, error) from error
    return Model(
        folder,
        weights,
        config,
        _info(settings, folder, config, tokenizer),
        _sampling(settings, folder),
    )


def cannot_load(folder: Path, error: Exception) -> ModelMissingError:
    """What to tell the user if mlx-lm could not load the model, for one of `LOAD_ERRORS`."""
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config") or {}
    settings = config.get("quantization_config") or text.get("quantization_config") or {}
    advice = "Choose another with model.path (or ANYCLAUDE_MODEL)."
    if method := settings.get("quant_method"):
        advice = (
            f"Its weights are quantised by the method {method}, which mlx-lm does not read in "
            "every form: choose a build of the model for MLX, or convert the original weights with "
            "`mlx_lm.convert --quantize`."
        )
    return ModelMissingError(
        f"The model in {folder} cannot be loaded: {type(error).__name__}: {error}. {advice}"
    )


def fingerprint(folder: Path) -> str:
    """A digest of everything that a KV cache depends on: weights, config, tokenizer, template.

    Of each weights file, the digest covers its size, its header, and samples at the start, the
    middle and the end: reading a 60 GB model completely would cost more than the caches save.
    """
    digest = hashlib.sha256()
    for name in _TEXT_FILES:
        file = folder / name
        if file.is_file():
            digest.update(name.encode() + b"\0" + file.read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.name.encode() + b"\0")
        for sample in _samples(file):
            digest.update(sample)
    return digest.hexdigest()[:32]


def _samples(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    yield size.to_bytes(8, "little")
    with file.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
        yield stream.read(min(header, size))
        for start in (8 + header, size // 2, size - SAMPLE_BYTES):
            stream.seek(max(0, start))
            yield stream.read(SAMPLE_BYTES)


def _info(
    settings: ModelSettings, folder: Path, config: Mapping[str, Any], tokenizer: TokenizerWrapper
) -> ModelInfo:
    is_demo = folder == DEMO_PATH
    name = settings.name or ("demo" if is_demo else _name(folder))
    return ModelInfo(
        id=f"anyclaude-{re.sub(r'[^a-z0-9.]+', '-', name.lower()).strip('-')}",
        display_name="anyclaude demo model" if is_demo else name,
        path=str(folder),
        fingerprint=fingerprint(folder),
        context_window_tokens=window_tokens(settings, config),
        is_demo=is_demo,
        has_tools=bool(tokenizer.has_tool_calling),
        has_thinking=bool(tokenizer.has_thinking),
        # The renderer refuses images.
        takes_images=False,
        longest_token_characters=longest_token_characters(tokenizer),
    )


def longest_token_characters(tokenizer: TokenizerWrapper) -> int:
    """No token stands for more characters; 0 if one may stand for any number of unknown ones."""
    if tokenizer.unk_token_id is not None:
        return 0
    return max(map(len, tokenizer.get_vocab()), default=0)


def _name(folder: Path) -> str:
    # The folder of a hub snapshot is named by its commit; two levels up is the model's name.
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").split("--")[-1]
    return folder.resolve().name


def window_tokens(settings: ModelSettings, config: Mapping[str, Any]) -> int:
    """The size of the context window: the model's, or a smaller one from the settings."""
    text = config.get("text_config") or config
    own = int(text.get("max_position_embeddings") or DEFAULT_WINDOW_TOKENS)
    return min(own, settings.context_window_tokens or own)


def generation_config(folder: Path) -> dict[str, Any]:
    """The model's own defaults for generation; empty if it has none.

    Raises:
        ModelMissingError: the file is damaged.
    """
    file = folder / "generation_config.json"
    try:
        return dict(json.loads(file.read_text())) if file.is_file() else {}
    except ValueError as error:
        raise ModelMissingError(
            f"{file} is not valid JSON: {error}. Download the model again, or choose another with "
            "model.path (or ANYCLAUDE_MODEL)."
        ) from error


def _sampling(settings: ModelSettings, folder: Path) -> SamplingDefaults:
    own = generation_config(folder)
    if own.get("do_sample") is False:
        own = {**own, "temperature": 0.0}
    # Some models write null for "not set".
    temperature = own.get("temperature")
    return SamplingDefaults(
        settings.temperature if temperature is None else temperature,
        own.get("top_p"),
        own.get("top_k"),
        own.get("min_p"),
    )
