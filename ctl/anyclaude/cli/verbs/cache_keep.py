"""`anyclaudectl cache pin|unpin|warm|verify`: what is kept, and whether it is right."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from anyclaude.cli.command import CommandError, ExitCode, connect
from anyclaude.cli.output import Json, emit, note
from anyclaude.cli.units import format_bytes

_COMPUTE_SECONDS: Final = 1800.0
# As much as Claude Code's tools and instructions: half a minute on a laptop.
_VERIFY_TOKENS: Final = 20_000

_Name = Annotated[str, typer.Argument(help="As `cache list` or `cache tree` prints it.")]
_Timeout = Annotated[float, typer.Option(help="Seconds that it may take.")]


def pin(name: _Name, json: Json = False) -> None:
    """Keep a cache, and all that it builds on, from eviction and from `prune`."""
    _pin(name, pinned=True, json=json)


def unpin(name: _Name, json: Json = False) -> None:
    """Let a cache go again when room is needed."""
    _pin(name, pinned=False, json=json)


def _pin(name: str, *, pinned: bool, json: bool) -> None:
    from anyclaude.cli.convert import to_dict

    with connect() as client:
        answer = client.pin(name, pinned=pinned)
    if json:
        emit({"name": name, "pinned": pinned, **to_dict(answer)})
        return
    done = "Pinned" if pinned else "Unpinned"
    print(
        f"{done} {answer.tokens} tokens in {answer.segments} segments; "
        f"{format_bytes(answer.pinned_bytes)} of {format_bytes(answer.pinned_limit_bytes)} pinned."
    )


def warm(
    file: Annotated[str, typer.Argument(help="A Messages request as JSON; - for standard input.")],
    timeout: _Timeout = _COMPUTE_SECONDS,
    json: Json = False,
) -> None:
    """Compute a request's prompt now, so that the next one like it need not."""
    from anyclaude.cli.convert import to_dict

    body = _read(file)
    with connect() as client:
        usage = client.warm(body, timeout)
    if json:
        emit({"usage": to_dict(usage)})
        return
    computed = usage.input_tokens + usage.cache_creation_tokens
    print(f"Computed {computed} tokens; {usage.cache_read_tokens} were kept already.")


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
    timeout: _Timeout = _COMPUTE_SECONDS,
    json: Json = False,
) -> None:
    """Compute a sample of the caches anew and compare. Wrong ones go; then the exit code is 1."""
    from anyclaude.cli.convert import to_dict

    with connect() as client:
        result = client.verify(max_tokens, timeout)
    if json:
        emit(to_dict(result))
    else:
        print(
            f"{result.segments} of {result.total_segments} segments are what a fresh run gives "
            f"({result.computed_tokens} tokens computed)."
        )
    if result.wrong:
        note("Wrong, and removed: " + ", ".join(result.wrong))
        raise CommandError(
            ExitCode.FAILED,
            "Some caches were wrong. Please report it; `anyclaudectl logs` names the segments.",
        )
