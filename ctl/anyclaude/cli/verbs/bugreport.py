"""`anyclaudectl bugreport`: one archive with what a bug report needs, without names and keys."""

import io
import json as json_module
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.cli.output import Json, note, report

if TYPE_CHECKING:
    from anyclaude.cli.client import ControlClient
    from anyclaude.cli.doctor.finding import Examined
    from anyclaude.cli.masking import Masking

_REQUESTS: Final = 200
_LOG_BYTES: Final = 1_000_000


def bugreport(
    file: Annotated[
        Path | None, typer.Argument(help="The archive to write.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Write an archive for a bug report: checks, status, settings, requests, log.

    It has no prompts and no keys; names of this user and machine are masked. Read it before you
    send it: what a library prints when it crashes is in the log.
    """
    from anyclaude.cli.doctor.checks import examine

    target = file or Path(time.strftime("anyclaude-bugreport-%Y%m%d-%H%M%S.tar.gz"))
    examined = examine()
    masking = _masking(examined)
    names = []
    with _create(target) as archive:
        for name, text in _members(examined):
            _add(archive, name, masking.apply(text))
            names.append(name)
    sentence = f"{target}: {', '.join(names)}."
    report({"file": str(target), "members": names}, sentence, json=json)
    note("Read it before you send it.")


def _members(examined: "Examined") -> Iterator[tuple[str, str]]:
    from anyclaude.cli.doctor.checks import CHECKS
    from anyclaude.cli.doctor.finding import run_check
    from anyclaude.cli.verbs.doctor import documents

    findings = {name: run_check(check, examined) for name, check in CHECKS.items()}
    yield "doctor.json", _text(list(documents(findings)))
    yield "versions.json", _text(_versions())
    settings = examined.settings.model_dump(mode="json")
    for upstream in settings["upstreams"].values():
        for table in ("headers", "environment"):
            upstream[table] = dict.fromkeys(upstream[table], "***")
        # Its arguments may contain a key.
        upstream["command"] = upstream["command"][:1]
    yield "settings.json", _text(settings)
    if examined.running:
        yield from _of_the_daemon(examined)
    for log in sorted(examined.paths.logs.glob("*.log")):
        yield f"logs/{log.name}", _end_of(log)


def _of_the_daemon(examined: "Examined") -> Iterator[tuple[str, str]]:
    from anyclaude.cli.client import ControlClient
    from anyclaude.cli.convert import to_dict

    assert examined.running is not None
    yield "status.json", _text(to_dict(examined.running.status))
    yield "modes.json", _text(to_dict(examined.running.modes))
    with ControlClient(examined.paths.control_socket) as client:
        yield "requests.json", _text(to_dict(client.requests(_REQUESTS)))
        yield "metrics.txt", _metrics(client)


def _metrics(client: "ControlClient") -> str:
    return client.metrics().text.decode(errors="replace")


def _versions() -> dict[str, Any]:
    import platform
    import sys
    from importlib import metadata

    import psutil

    packages = {each.name: each.version for each in metadata.distributions()}
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "memory_bytes": psutil.virtual_memory().total,
        "python": sys.version,
        "packages": dict(sorted(packages.items())),
    }


def _masking(examined: "Examined") -> "Masking":
    from anyclaude.cli.masking import Masking

    settings = examined.settings
    upstreams = settings.upstreams.values()
    files = [settings.server.auth_token_file, settings.search.api_key_file]
    files += [upstream.api_key_file for upstream in upstreams]
    keys = [_key_in(Path(name).expanduser()) for name in files if name]
    keys += [examined.environ.get(upstream.api_key_env, "") for upstream in upstreams]
    return Masking.of_this_machine(examined.environ, *keys)


def _key_in(file: Path) -> str:
    """The key in a file; empty if this user cannot read it, since then no report has it."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _end_of(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _LOG_BYTES))
        return stream.read(_LOG_BYTES).decode(errors="replace")


def _create(target: Path) -> tarfile.TarFile:
    """Opens a new archive that only this user can read.

    Raises:
        CommandError: PRECONDITION when the file exists, FAILED when it cannot be written.
    """
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(
            ExitCode.PRECONDITION, f"{target} exists. Name another file, or remove it."
        ) from None
    except OSError as error:
        raise CommandError(
            ExitCode.FAILED, f"{target} cannot be written: {error.strerror}."
        ) from None
    os.close(descriptor)
    return tarfile.open(target, "w:gz")


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    entry = tarfile.TarInfo(f"anyclaude-bugreport/{name}")
    entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(content))


def _text(document: Any) -> str:
    return json_module.dumps(document, indent=2) + "\n"
