"""`anyclaudectl cache warm|verify|export|import`: the verbs that may take minutes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from anyclaude.cli.command import CommandError, ExitCode, connect
from anyclaude.cli.convert import to_dict
from anyclaude.cli.output import Json, emit, note, report
from anyclaude.cli.units import counted, format_bytes

if TYPE_CHECKING:
    from anyclaude.cache.v1.cache_pb2 import ExportCachesResponse, ImportCachesResponse

_SECONDS: Final = 1800.0
# About the size of Claude Code's tools and instructions: half a minute on a laptop.
_VERIFY_TOKENS: Final = 20_000

_File = Annotated[str, typer.Argument(help="The file; its folder must be there.")]
_Timeout = Annotated[float, typer.Option(help="Seconds that it may take.")]


def warm(
    file: Annotated[str, typer.Argument(help="A Messages request as JSON; - for standard input.")],
    timeout: _Timeout = _SECONDS,
    json: Json = False,
) -> None:
    """Compute a request's prompt now, so that the next one like it need not."""
    from anyclaude.cache.v1 import cache_pb2

    request = cache_pb2.WarmCacheRequest(body_json=_read(file))
    with connect() as client:
        usage = client.call(client.caches.WarmCache, request, timeout).usage
    if json:
        emit({"usage": to_dict(usage)})
        return
    computed = usage.input_tokens + usage.cache_creation_tokens
    print(
        f"Computed {counted(computed, 'token')}; "
        f"{counted(usage.cache_read_tokens, 'token')} kept already."
    )


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).expanduser().read_bytes()
    except OSError as error:
        raise CommandError(
            ExitCode.NOT_FOUND, f"{file} cannot be read: {error.strerror or error}."
        ) from None


def verify(
    max_tokens: Annotated[
        int, typer.Option(min=0, help="Compute at most this many tokens; 0 for all there are.")
    ] = _VERIFY_TOKENS,
    timeout: _Timeout = _SECONDS,
    json: Json = False,
) -> None:
    """Compute a sample of the caches again and compare. Exit 1 if some are not what they should be.

    On the CPU every bit must be equal, and a wrong cache is removed. Elsewhere last bits depend on
    how many tokens a step computes: a cache that is further off than that is reported, and stays.
    """
    from anyclaude.cache.v1 import cache_pb2

    request = cache_pb2.VerifyCachesRequest(max_tokens=max_tokens)
    with connect() as client:
        result = client.call(client.caches.VerifyCaches, request, timeout)
    if json:
        emit(to_dict(result))
    else:
        sound = result.segments - len(result.wrong) - len(result.differing)
        print(
            f"{max(0, sound)} of {counted(result.total_segments, 'segment')} are what a "
            f"fresh run gives ({counted(result.computed_tokens, 'token')} computed)."
        )
        if not result.exact:
            print(
                f"Keys and values differ from a fresh run by up to {result.error:.2%}; two fresh "
                f"runs in other chunks differ by up to {result.noise_floor:.2%}."
            )
    if result.wrong:
        note("Wrong, and removed: " + ", ".join(result.wrong))
    if result.differing:
        note("These differ by more than noise, and were kept: " + ", ".join(result.differing))
    if result.wrong or result.differing:
        note("Some caches were wrong. Please report it; `anyclaudectl logs` names the segments.")
        raise typer.Exit(ExitCode.FAILED)


def export_caches(
    file: _File,
    session: Annotated[str, typer.Option(help="Only caches of this session.")] = "",
    prefixes: Annotated[
        bool, typer.Option("--prefixes", help="Only prefixes of tools and instructions.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    timeout: _Timeout = _SECONDS,
    json: Json = False,
) -> None:
    """Write caches to one file. It contains conversations, so only you can read it."""
    from anyclaude.cache.v1 import cache_pb2

    if session and prefixes:
        raise typer.BadParameter("prefixes belong to no session: give --session or --prefixes")
    path = _absolute(file)
    request = cache_pb2.ExportCachesRequest(
        path=path, session_id=session, prefixes=prefixes, overwrite=force
    )
    with connect() as client:
        answer = client.call(client.caches.ExportCaches, request, timeout)
    report({"path": path, **to_dict(answer)}, _exported(answer, path), json=json)
    if answer.left_out_segments:
        note(
            f"Segments left out: {answer.left_out_segments}. They were evicted, or their "
            "records are corrupt; `anyclaudectl logs` says more."
        )


def import_caches(file: _File, timeout: _Timeout = _SECONDS, json: Json = False) -> None:
    """Add the caches of an export, once all of it is verified. Exit 1 if some did not fit."""
    from anyclaude.cache.v1 import cache_pb2

    path = _absolute(file)
    request = cache_pb2.ImportCachesRequest(path=path)
    with connect() as client:
        answer = client.call(client.caches.ImportCaches, request, timeout)
    report({"path": path, **to_dict(answer)}, _imported(answer), json=json)
    if answer.unpinned_segments:
        note(
            f"Pins left out: {answer.unpinned_segments}. Pinned caches may use no more here "
            "(cache.max_pinned_fraction)."
        )
    if answer.left_out_segments:
        note(
            f"Segments that did not fit: {answer.left_out_segments}. Raise "
            "cache.memory_limit_bytes or cache.disk_limit_bytes, or prune others, "
            "and import again."
        )
        raise typer.Exit(ExitCode.FAILED)


def _exported(answer: "ExportCachesResponse", path: str) -> str:
    return (
        f"Exported {counted(answer.tokens, 'token')} in {counted(answer.segments, 'segment')} of "
        f"{counted(answer.lineages, 'conversation')}, {format_bytes(answer.bytes)}, to {path}"
    )


def _imported(answer: "ImportCachesResponse") -> str:
    return (
        f"Imported {counted(answer.tokens, 'token')} in {counted(answer.segments, 'segment')} and "
        f"{counted(answer.lineages, 'conversation')}; "
        f"already here: {counted(answer.known_segments, 'segment')}."
    )


def _absolute(file: str) -> str:
    """Relative to the folder of this command, which is not the worker's."""
    return str(Path(file).expanduser().absolute())
