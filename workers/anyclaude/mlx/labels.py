"""Labels: an operator's own words for caches, kept in one small JSON file beside the disk tier.

A label belongs to a cache's name under one model fingerprint, and lives as long as its cache. Once
nothing has the name any more, in memory or on disk, the next change drops the label. Without a disk
tier caches do not survive a restart, so their labels are kept in memory only.

Used on the MLX thread only, like the store.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from anyclaude.mlx.caches import UnknownCacheError
from anyclaude.mlx.kv.store import KVStore
from anyclaude.mlx.kv_disk import DiskTier
from anyclaude.runtime.paths import write_atomically

log = structlog.get_logger(__name__)

# Labels of one model; with the maximum length below, they are less than a megabyte.
MAX_LABELS: Final = 1000
MAX_CHARACTERS: Final = 200

# By fingerprint, then by name.
_Labels = dict[str, dict[str, str]]


class LabelError(Exception):
    """The label cannot be kept; the message says why. Nothing was changed."""


class Labels:
    """The labels of one store's caches."""

    def __init__(self, store: KVStore, disk: DiskTier | None) -> None:
        self._store = store
        self._disk = disk
        self._file: Path | None = None
        self._fingerprint = ""
        if disk is not None:
            self._file = disk.status().folder.with_name("labels.json")
            self._fingerprint = next(iter(disk.models()))
        self._labels = _read(self._file) if self._file else {}

    def put(self, name: str, label: str) -> None:
        """Labels the cache or segment called `name`; an empty label removes the one it has.

        Raises:
            UnknownCacheError: nothing has that name.
            LabelError: there are too many, or it could not be written.
        """
        names = set(_names(self._store))
        if name not in names:
            raise UnknownCacheError(name, f'There is no cache "{name}" to label.')
        own = {**self._of_living(names), name: label}
        if not label:
            del own[name]
        if len(own) > MAX_LABELS:
            raise LabelError(f"There are {MAX_LABELS} labels already. Remove another one first.")
        self._keep(own)

    def of(self, *names: str) -> str:
        """The labels that `names` have; empty without any."""
        own = self._labels.get(self._fingerprint, {})
        return ", ".join(own[name] for name in names if name in own)

    def forget_pruned(self) -> None:
        """Drops the labels of caches that are gone; a failure to write is only logged."""
        if not self._labels:
            return
        try:
            self._keep(self._of_living(set(_names(self._store))))
        except LabelError as error:
            log.warning("labels of pruned caches stay on disk", why=str(error))

    def _of_living(self, names: set[str]) -> dict[str, str]:
        own = self._labels.get(self._fingerprint, {})
        return {name: label for name, label in own.items() if name in names}

    def _keep(self, own: dict[str, str]) -> None:
        """Replaces this model's labels, and drops those of models without records."""
        stored = self._disk.models() if self._disk is not None else {}
        others = {model: labels for model, labels in self._labels.items() if model in stored}
        labels = {**others, self._fingerprint: own}
        if self._file is not None and labels != self._labels:
            try:
                write_atomically(self._file, json.dumps(labels).encode(), 0o600)
            except OSError as error:
                why = error.strerror or str(error)
                raise LabelError(f"{self._file} cannot be written: {why}.") from error
        self._labels = labels


def _names(store: KVStore) -> Iterator[str]:
    """The name of everything that can have a label."""
    yield from (lineage.name for lineage in store.lineages())
    for node in store.tree.nodes():
        yield node.name
        if node.stable_digest:
            yield f"prefixes/{node.stable_digest}"


def _read(file: Path) -> _Labels:
    """The labels on disk; none if the file is missing or is not one of ours."""
    try:
        found = json.loads(file.read_text())
        return {
            str(model): {str(name): str(label) for name, label in labels.items()}
            for model, labels in found.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        log.warning("labels of caches cannot be read", file=str(file), why=str(error))
        return {}
