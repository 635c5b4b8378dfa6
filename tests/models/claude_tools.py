"""Twenty-five tools like those that Claude Code offers, in two variants.

In the bounded variant every string, array and number has limits, so that a model which writes at
random ends. In the unbounded variant strings have no limits, as in most real tools.
"""

from typing import Any

from anyclaude.messages.requests import Tool

Schema = dict[str, Any]


def tools(*, bounded: bool = True) -> list[Tool]:
    """All tools of one variant."""
    return [Tool(name=name, input_schema=schema) for name, schema in _schemas(bounded).items()]


def _schemas(bounded: bool) -> dict[str, Schema]:
    def text(most: int = 12, **more: Any) -> Schema:
        limits = {"minLength": 1, "maxLength": most} if bounded else {}
        return {"type": "string", "description": "a text", **limits, **more}

    def whole(most: int = 9999, **more: Any) -> Schema:
        return {"type": "integer", "minimum": 0, "maximum": most, **more}

    def number(most: int = 60) -> Schema:
        # Only whole steps bound the length of a decimal fraction.
        return {"type": "number", "minimum": 0, "maximum": most, "multipleOf": 0.5}

    def many(items: Schema, most: int = 3) -> Schema:
        return {"type": "array", "items": items, "minItems": 1, "maxItems": most}

    flag: Schema = {"type": "boolean", "default": False}
    path = text(20)
    todo = thing(
        content=text(), status={"enum": ["pending", "in_progress", "completed"]}, activeForm=text()
    )
    edit = thing(old_string=text(), new_string=text(), replace_all=flag, needs=2)
    option = thing(label=text(8), description=text(), needs=2)
    question = thing(
        question=text(), header=text(6), options=many(option), multiSelect=flag, needs=4
    )
    return {
        "Bash": thing(command=text(30), timeout=whole(600000), run_in_background=flag, needs=1),
        "Read": thing(file_path=path, offset=whole(), limit=whole(), needs=1),
        "Write": thing(file_path=path, content=text(40), needs=2),
        "Edit": thing(file_path=path, old_string=text(), new_string=text(), replace_all=flag),
        "MultiEdit": thing(file_path=path, edits=many(edit)),
        "Glob": thing(pattern=text(), path=path, needs=1),
        "Grep": thing(
            pattern=text(),
            output_mode={"type": "string", "enum": ["content", "files_with_matches", "count"]},
            **{"-i": flag, "-A": whole(99), "-n": flag, "head_limit": whole(99)},
            needs=1,
        ),
        "NotebookEdit": thing(
            notebook_path=path,
            cell_type={"type": "string", "enum": ["code", "markdown"]},
            new_source=text(30),
            needs=1,
        ),
        "WebFetch": thing(url=text(30, pattern="^https://[a-z]{1,10}\\.org$"), prompt=text()),
        "WebSearch": thing(query=text(), allowed_domains=many(text(8)), needs=1),
        "TodoWrite": thing(todos=many(todo)),
        "Task": thing(description=text(), prompt=text(30), subagent_type=text(), needs=3),
        "BashOutput": thing(bash_id=text(pattern="^[0-9a-f]{6}$"), filter=text(), needs=1),
        "KillShell": thing(shell_id=text(pattern="^[0-9a-f]{6}$")),
        "ExitPlanMode": thing(plan=text(40)),
        "AskUserQuestion": thing(questions=many(question, 2)),
        "Skill": thing(skill=text(), args=text(), needs=1),
        "ListMcpResources": thing(server=text(), needs=0),
        "Status": {"type": "object", "properties": {}},
        "mcp__git__log": thing(
            range={"anyOf": [whole(99), {"type": "null"}, thing(since=text(), until=text())]},
            author={"type": ["string", "null"], **({"maxLength": 9} if bounded else {})},
            needs=1,
        ),
        "mcp__shapes__draw": thing(
            shape={
                "oneOf": [
                    thing(kind={"const": "circle"}, radius=number()),
                    thing(kind={"const": "rectangle"}, width=number(), height=number()),
                ]
            },
            colour={"enum": ["rot", "grün", "青", "🟡", None]},
        ),
        "mcp__grüße__übersetzen": thing(
            größe=whole(9),
            текст=text(10),
            言語={"enum": ["日本語", "Русский"]},
            needs=3,
        ),
        "mcp__tree__insert": {
            "type": "object",
            "$defs": {
                "leaf": thing(value={"type": ["integer", "boolean"], "maximum": 9, "minimum": 0})
            },
            "properties": {
                "leaf": {"$ref": "#/$defs/leaf"},
                "pair": {
                    "type": "array",
                    "prefixItems": [{"$ref": "#/$defs/leaf"}, text(5)],
                    "items": False,
                    "minItems": 2,
                },
            },
            "required": ["leaf", "pair"],
        },
        "mcp__calc__sum": thing(numbers=many(number(9)), scale={"const": 2}, needs=1),
        "mcp__matrix__set": thing(rows=many(many(whole(9)), 2), note=text(5), needs=1),
    }


def thing(*, needs: int | None = None, **properties: Schema) -> Schema:
    """An object of which the first `needs` properties, or all, are required."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": properties,
        "required": list(properties)[:needs],
        "additionalProperties": False,
    }
