"""`anyclaudectl cache export|import`: caches in one file, for another home or another machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from anyclaude.cli.command import CommandError, ExitCode, connect
from anyclaude.cli.output import Json, emit, note
from anyclaude.cli.units import format_bytes

if TYPE_CHECKING:
    from anyclaude.worker.v1.worker_pb2 import ExportCachesResponse, ImportCachesResponse

_SECONDS: Final = 1800.0

_File = Annotated[str, typer.Argument(help="The file; its folder must be there.")]
_Timeout = Annotated[float, typer.Option(help="Seconds that it may take.")]


def export_caches(
    file: _File,
    session: Annotated[str, typer.Option(help="Only caches of this session.")] = "",
    prefixes: Annotated[
        bool, typer.Option("--prefixes", help="Only system-and-tools prefixes: nothing said.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Take the place of a file that is there.")
    ] = False,
    timeout: _Timeout = _SECONDS,
    json: Json = False,
) -> None:
    """Write caches to one file. It holds what was said in them, so only you can read it."""
    from anyclaude.cli.convert import to_dict
    from anyclaude.worker.v1 import worker_pb2

    if session and prefixes:
        raise typer.BadParameter("prefixes belong to no session: give --session or --prefixes")
    path = _absolute(file)
    asked = worker_pb2.ExportCachesRequest(
        path=path, session_id=session, prefixes=prefixes, overwrite=force
    )
    with connect() as client:
        answer = client.export(asked, timeout)
    if json:
        emit({"path": path, **to_dict(answer)})
    else:
        print(_exported(answer, path))
    if answer.left_out_segments:
        note(
            f"Segments left out: {answer.left_out_segments}. They were evicted meanwhile, or their "
            "records are in doubt; `anyclaudectl logs` says more."
        )


def import_caches(file: _File, timeout: _Timeout = _SECONDS, json: Json = False) -> None:
    """Take an export over, once all of it is verified. Exit 1 if some found no room."""
    from anyclaude.cli.convert import to_dict
    from anyclaude.worker.v1 import worker_pb2

    path = _absolute(file)
    with connect() as client:
        answer = client.take_over(worker_pb2.ImportCachesRequest(path=path), timeout)
    if json:
        emit({"path": path, **to_dict(answer)})
    else:
        print(_imported(answer))
    if answer.unpinned_segments:
        note(
            f"Pins left out: {answer.unpinned_segments}. Pinned caches may take no more here "
            "(cache.max_pinned_fraction)."
        )
    if answer.left_out_segments:
        raise CommandError(
            ExitCode.FAILED,
            f"Segments without room: {answer.left_out_segments}. Raise cache.memory_limit_bytes or "
            "cache.disk_limit_bytes, or prune others, and import again.",
        )


def _exported(answer: "ExportCachesResponse", path: str) -> str:
    return (
        f"Exported {answer.tokens} tokens in {answer.segments} segments of "
        f"{answer.lineages} conversations, {format_bytes(answer.bytes)}, to {path}"
    )


def _imported(answer: "ImportCachesResponse") -> str:
    return (
        f"Imported {answer.tokens} tokens in {answer.segments} segments and "
        f"{answer.lineages} conversations; {answer.known_segments} segments were here already."
    )


def _absolute(file: str) -> str:
    """As seen from here: the worker has a working folder of its own."""
    return str(Path(file).expanduser().absolute())
