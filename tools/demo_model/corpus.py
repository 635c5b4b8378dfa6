"""The text that the demo model learns to ignore, made from Python's standard library.

It has equal parts of sources, prose (docstrings) and tool descriptions in JSON (made from function
signatures), because these are what an agent's prompt consists of.
"""

import ast
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_KIND_CHARACTERS = 1_200_000
_FOLDERS = (".", "asyncio", "concurrent/futures", "email", "http", "importlib", "json", "logging")


def texts() -> list[str]:
    """Return the corpus; the same Python install always gives the same list."""
    sources = [path.read_text(encoding="utf-8", errors="replace") for path in _files()]
    trees = [ast.parse(source) for source in sources]
    kinds = (
        iter(sources),
        (doc for tree in trees for doc in _docstrings(tree)),
        (tool for tree in trees for tool in _tools(tree)),
    )
    return [text for kind in kinds for text in _capped(kind)]


def _files() -> Iterator[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    for folder in _FOLDERS:
        yield from sorted((library / folder).glob("*.py"))


def _capped(kind: Iterator[str]) -> Iterator[str]:
    left = _KIND_CHARACTERS
    for text in kind:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            doc = ast.get_docstring(node)
            if doc and len(doc) > 40:
                yield doc + "\n\n"


def _tools(tree: ast.Module) -> Iterator[str]:
    for function in _functions(tree):
        doc = ast.get_docstring(function)
        if doc:
            yield json.dumps(_tool(function, doc)) + "\n"


def _tool(function: ast.FunctionDef | ast.AsyncFunctionDef, doc: str) -> dict[str, object]:
    arguments = [argument.arg for argument in function.args.args if argument.arg != "self"]
    required = arguments[: len(arguments) - len(function.args.defaults)]
    properties = {
        name: {"type": "string", "description": f"The {name} for {function.name}"}
        for name in arguments
    }
    return {
        "name": function.name,
        "description": doc,
        "parameters": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        },
    }
