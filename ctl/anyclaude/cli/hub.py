"""Models on this machine, and downloads from the Hugging Face hub.

A download happens only here, in a command that a person types: the service itself never downloads.
The hub's own library downloads and resumes. It does not compare contents, so `damaged_files` does:
the cache names each file by its SHA-256, or by git's SHA-1 for small ones.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from huggingface_hub import scan_cache_dir, snapshot_download
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from anyclaude.messages.windows import window_problem

# What mlx-lm reads of a model, without Python files: the service runs no code of a model.
FILES: Final = (
    *("*.json", "*.jsonl", "*.jinja", "*.txt", "*.model", "*.tiktoken"),
    "model*.safetensors",
)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SHA1: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class LocalModel:
    """A model folder, or the newest snapshot of a model in the hub cache."""

    # What `[model] path` may name.
    name: str
    folder: Path
    nbytes: int
    model_type: str
    # 0 if its config does not say.
    window_tokens: int
    # Whether its chat template describes tools.
    offers_tools: bool

    @property
    def state(self) -> str:
        """What keeps it from serving Claude Code, as far as its files tell; else "ok"."""
        if not self.offers_tools:
            return "no tools in its template"
        return "window too small" if window_problem(self.window_tokens) else "ok"

    def document(self) -> dict[str, Any]:
        """All of it, as `model list --json` prints it."""
        return asdict(self) | {"folder": str(self.folder), "state": self.state}


def local_models(folders: tuple[Path, ...] = ()) -> list[LocalModel]:
    """The models of the local hub cache and those directly in `folders`, by name."""
    found = [model for name, path in _snapshots() if (model := _read(name, path))]
    for folder in folders:
        children = sorted(folder.iterdir()) if folder.is_dir() else []
        found += [model for child in children if (model := _read(str(child), child))]
    return sorted(found, key=lambda model: model.name.lower())


def _snapshots() -> Iterator[tuple[str, Path]]:
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repo in repos:
        if repo.repo_type == "model" and repo.revisions:
            newest = max(repo.revisions, key=lambda revision: revision.last_modified)
            yield repo.repo_id, newest.snapshot_path


def _read(name: str, folder: Path) -> LocalModel | None:
    """None if the folder holds no whole model."""
    weights = [file for file in folder.glob("*.safetensors") if file.exists()]
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    if not weights or not isinstance(config, dict):
        return None
    text = config.get("text_config") or config
    return LocalModel(
        name=name,
        folder=folder,
        nbytes=sum(file.stat().st_size for file in weights),
        model_type=str(config.get("model_type", "")),
        window_tokens=text.get("max_position_embeddings") or 0,
        offers_tools="tools" in _template(folder),
    )


def _template(folder: Path) -> str:
    """The chat template; empty if there is none."""
    try:
        return (folder / "chat_template.jinja").read_text()
    except OSError:
        pass
    try:
        return json.dumps(
            json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
        )
    except (OSError, ValueError, KeyError):
        return ""


def missing_bytes(name: str) -> int:
    """The bytes that a download of the model has to fetch. Raises as `snapshot_download`."""
    disable_progress_bars()
    plan: list[Any] = snapshot_download(name, allow_patterns=list(FILES), dry_run=True)
    enable_progress_bars()
    return sum(file.file_size or 0 for file in plan if file.will_download)


def download(name: str) -> Path:
    """Downloads the files that are missing, with a progress bar.

    The hub's library begins a file anew that an earlier process left incomplete.
    """
    return Path(snapshot_download(name, allow_patterns=list(FILES)))


def damaged_files(folder: Path) -> list[Path]:
    """Removes the files of a snapshot whose content is not what the hub announced; returns them."""
    damaged = [file for file in sorted(folder.rglob("*")) if file.is_file() and not _is_sound(file)]
    for file in damaged:
        file.resolve().unlink()
        file.unlink(missing_ok=True)
    return damaged


def _is_sound(file: Path) -> bool:
    blob = file.resolve()
    if _SHA256.fullmatch(blob.name):
        with blob.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == blob.name
    if _SHA1.fullmatch(blob.name):
        content_bytes = blob.read_bytes()
        header = b"blob %d\0" % len(content_bytes)
        # Git's name of a file, not a protection.
        sha1 = hashlib.sha1(header + content_bytes, usedforsecurity=False)
        return sha1.hexdigest() == blob.name
    # A file system without links: the cache keeps the file under its own name.
    return True
