"""Checks of the files: who may read them, how much space is left, and what is no longer used."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Final

from anyclaude.cli.doctor.finding import Examined, Finding, ok, problem, warning
from anyclaude.cli.units import counted, format_bytes, format_seconds
from anyclaude.runtime.paths import Paths

# Below the cache folder: the names that the disk tier gives its files.
_RECORDS: Final = "kv"
_QUARANTINE: Final = "quarantine"
_OLD_RECORDS: Final = "*/*/*.kv"
# Less than this fails with the next log line or saved mode.
_LEAST_FREE_BYTES: Final = 1_000_000_000
_CLOCK_SLACK_SECONDS: Final = 300.0


def permissions(examined: Examined) -> Iterator[Finding]:
    """Whether only this user can read prompts, keys and sockets."""
    for folder in _folders(examined.paths):
        if folder.exists():
            yield from _private(folder, "700")
    settings = examined.settings
    keys = [upstream.api_key_file for upstream in settings.upstreams.values()]
    for name in filter(None, [settings.server.auth_token_file, *keys]):
        if (file := Path(name).expanduser()).exists():
            yield from _private(file, "600")


def disk(examined: Examined) -> Iterator[Finding]:
    """Whether the disk has what the caches may use."""
    folder = _nearest(examined.paths.cache)
    free = shutil.disk_usage(folder).free
    used = sum(file.stat().st_size for file in examined.paths.cache.rglob("*") if file.is_file())
    budget = examined.settings.cache.disk_limit_bytes
    if free < _LEAST_FREE_BYTES:
        yield problem(
            f"{format_bytes(free)} are free on the disk of {folder}.",
            "Soon neither caches nor logs nor a change of mode can be written.",
            "anyclaudectl cache prune --tier disk --percent 50 --yes",
        )
    elif free + used < budget:
        yield warning(
            f"The caches may use {format_bytes(budget)} (cache.disk_limit_bytes), and "
            f"{format_bytes(free + used)} are free.",
            "The disk fills up before old caches are removed.",
            f"anyclaudectl config set cache.disk_limit_bytes {(free + used) // 2}",
        )
    else:
        yield ok(f"{format_bytes(free)} are free; caches use {format_bytes(used)}.")


def failed_writes(examined: Examined) -> Iterator[Finding]:
    """Whether the running worker could write its caches."""
    if examined.running and examined.running.status.disk.last_error:
        yield problem(
            f"Caches were not written: {examined.running.status.disk.last_error}",
            "They are computed again after a restart.",
            f"df -h {quote(str(_nearest(examined.paths.cache)))}",
        )


def old_records(examined: Examined) -> Iterator[Finding]:
    """Records that nothing reads any more."""
    folder = examined.paths.cache / _RECORDS
    quarantine = folder / _QUARANTINE
    corrupt = list(quarantine.glob("*.safetensors"))
    if corrupt:
        yield warning(
            f"{len(corrupt)} corrupt records are in {quarantine}: {_size(corrupt)}.",
            "Their tokens were computed again; the files are kept for a bug report.",
            f"rm -r {quote(str(quarantine))}",
        )
    old = list(folder.glob(_OLD_RECORDS))
    if old:
        yield warning(
            f"{folder} holds {counted(len(old), 'record')} of an older version: {_size(old)}.",
            "This version does not read them.",
            f"find {quote(str(folder))} -name '*.kv' -delete",
        )


def clock(examined: Examined) -> Iterator[Finding]:
    """Whether files come from the future, so that this machine's clock is behind."""
    paths = examined.paths
    known = [file for file in (paths.log_file, paths.mode_file, Path(__file__)) if file.exists()]
    ahead = max(file.stat().st_mtime for file in known) - examined.now
    if ahead > _CLOCK_SLACK_SECONDS:
        yield problem(
            f"This machine's clock is at least {format_seconds(ahead)} behind its own files.",
            "Ages are wrong, and servers with TLS are refused.",
            "sudo sntp -sS time.apple.com"
            if examined.platform == "darwin"
            else "sudo timedatectl set-ntp true",
        )


def logs(examined: Examined) -> Iterator[Finding]:
    """Whether the logs stay within their bound."""
    folder, log = examined.paths.logs, examined.settings.log
    if not folder.exists():
        return
    bound = log.file_max_bytes * (log.file_count + 1)
    for file in folder.iterdir():
        if file.is_file() and file.stat().st_size > bound:
            yield warning(
                f"{file} has {format_bytes(file.stat().st_size)}.",
                "It is not rotated: launchd keeps it open.",
                f": > {quote(str(file))}",
            )


def _private(path: Path, mode: str) -> Iterator[Finding]:
    info = path.lstat()
    if info.st_uid != os.getuid():
        yield problem(
            f"{path} belongs to user {info.st_uid}.",
            "The daemon refuses folders of others.",
            f"sudo chown {os.getuid()} {quote(str(path))}",
        )
    elif stat.S_IMODE(info.st_mode) & 0o077 and not stat.S_ISLNK(info.st_mode):
        yield problem(
            f"{path} has mode {stat.S_IMODE(info.st_mode):o}: other users can read it.",
            "It may contain conversations or keys.",
            f"chmod {mode} {quote(str(path))}",
        )


def _folders(paths: Paths) -> list[Path]:
    return [paths.config_file.parent, paths.state, paths.cache, paths.logs, paths.run]


def _nearest(folder: Path) -> Path:
    """The folder, or the first one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _size(files: list[Path]) -> str:
    return format_bytes(sum(file.stat().st_size for file in files))
