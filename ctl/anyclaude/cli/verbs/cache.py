"""`anyclaudectl cache`: the KV caches, looked at; what changes them is registered here as well."""

from typing import Annotated

import typer

from anyclaude.cli.command import connect
from anyclaude.cli.output import Json, emit, facts, table
from anyclaude.cli.tables import branches, count, show_caches
from anyclaude.cli.units import format_bytes
from anyclaude.cli.verbs.cache_file import export_caches, import_caches
from anyclaude.cli.verbs.cache_keep import pin, unpin, verify, warm
from anyclaude.cli.verbs.cache_prune import prune

app = typer.Typer(help="List, show, keep, prune and explain the KV caches.", no_args_is_help=True)
app.command("prune")(prune)
app.command("pin")(pin)
app.command("unpin")(unpin)
app.command("warm")(warm)
app.command("verify")(verify)
app.command("export")(export_caches)
app.command("import")(import_caches)


@app.command("list")
def list_caches(json: Json = False) -> None:
    """List every cache."""
    from anyclaude.cli.convert import to_dict

    with connect() as client:
        answer = client.caches()
    if json:
        document = to_dict(answer)
        # Pages are the wire's business: all of them are here.
        del document["next_page_token"]
        emit(document)
        return
    show_caches(answer.caches)
    memory = answer.memory
    limit = f" of {format_bytes(memory.cache_limit_bytes)}" if memory.cache_limit_bytes else ""
    print(f"{count(answer.caches)}, {format_bytes(memory.cache_bytes)}{limit}")
    for stored in answer.models:
        whose = "this model" if stored.resident else f"model {stored.fingerprint}"
        print(f"On disk, of {whose}: {stored.records} segments, {format_bytes(stored.bytes)}")


@app.command("show")
def show_cache(
    name: Annotated[str, typer.Argument(help="As `cache list` prints it.")], json: Json = False
) -> None:
    """Show one cache."""
    from anyclaude.cli.convert import to_dict

    with connect() as client:
        cache = client.cache(name)
    if json:
        emit({"cache": to_dict(cache)})
        return
    document = to_dict(cache) | {"bytes": f"{cache.bytes} ({format_bytes(cache.bytes)})"}
    facts([(key, "-" if value in (None, "") else str(value)) for key, value in document.items()])


@app.command("tree")
def tree(json: Json = False) -> None:
    """Show how the caches build on one another: every distinct token once."""
    from anyclaude.cli.convert import to_dict

    with connect() as client:
        answer = client.cache_tree()
    if json:
        emit(to_dict(answer))
        return
    rows = list(branches(answer.segments))
    if rows:
        table(("TOKENS", "FROM", "MEMORY", "DISK", "SEGMENT"), rows, right=(0, 1, 2, 3))
    in_memory = sum(segment.bytes for segment in answer.segments)
    on_disk = sum(segment.disk_bytes for segment in answer.segments)
    print(
        f"{len(answer.segments)} segments, {format_bytes(in_memory)} in memory, "
        f"{format_bytes(on_disk)} on disk"
    )


@app.command("explain")
def explain(
    request_id: Annotated[str, typer.Argument(help="As `requests` prints it.")],
    json: Json = False,
) -> None:
    """Say why a request reused what it did, and where it left what was kept."""
    from anyclaude.cli.convert import to_dict
    from anyclaude.cli.explanation import lines

    with connect() as client:
        explanation = client.explain(request_id)
    if json:
        emit({"explanation": to_dict(explanation)})
        return
    facts(list(lines(explanation)))
