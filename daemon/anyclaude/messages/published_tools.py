"""The client tools that Anthropic defines: a request names one by its type alone.

Callers run these tools themselves, so a model has to know their arguments. Here are the schemas as
Anthropic publishes them ("Bash tool", "Text editor tool", "Memory tool" and "Computer use tool" in
its documentation), with short descriptions of our own.
"""

from collections.abc import Mapping
from typing import Any, Final

_Json = dict[str, Any]

_STRING: Final[_Json] = {"type": "string"}
_INTEGER: Final[_Json] = {"type": "integer"}
_RANGE: Final[_Json] = {
    "type": "array",
    "items": {"type": "integer"},
    "description": "First and last line, counted from 1; -1 is the end.",
}
_POINT: Final[_Json] = {
    "type": "array",
    "items": {"type": "integer"},
    "description": "x and y in pixels from the top left corner.",
}


def _commands(*names: str) -> _Json:
    return {"type": "string", "enum": list(names)}


def _object(required: tuple[str, ...], **properties: _Json) -> _Json:
    return {"type": "object", "properties": properties, "required": list(required)}


_BASH: Final = (
    "Runs a command in a bash shell that keeps its state between calls; `restart` starts it anew.",
    _object((), command=_STRING, restart={"type": "boolean"}),
)
_EDITOR_TEXT: Final = (
    "Views and edits files. `view` shows a file or folder, `create` writes `file_text` to a new "
    "file, `str_replace` replaces the one occurrence of `old_str` by `new_str`, `insert` puts text "
    "after line `insert_line`"
)


def _editor(*commands: str, inserted: str) -> tuple[str, _Json]:
    undo = ", `undo_edit` takes back the last edit" if "undo_edit" in commands else ""
    schema = _object(
        ("command", "path"),
        command=_commands(*commands),
        path=_STRING,
        file_text=_STRING,
        old_str=_STRING,
        **{"new_str": _STRING, "insert_line": _INTEGER, inserted: _STRING},
        view_range=_RANGE,
    )
    return f"{_EDITOR_TEXT}{undo}.", schema


_EDIT_COMMANDS: Final = ("view", "create", "str_replace", "insert")
_MEMORY: Final = (
    "Keeps notes in files below /memories, which outlast this conversation. `view` shows a file or "
    "folder, `create` writes `file_text`, `str_replace` replaces `old_str` by `new_str`, `insert` "
    "puts `insert_text` after line `insert_line`, `delete` removes, `rename` moves `old_path` to "
    "`new_path`.",
    _object(
        ("command",),
        command=_commands(*_EDIT_COMMANDS, "delete", "rename"),
        path=_STRING,
        view_range=_RANGE,
        file_text=_STRING,
        old_str=_STRING,
        new_str=_STRING,
        insert_line=_INTEGER,
        insert_text=_STRING,
        old_path=_STRING,
        new_path=_STRING,
    ),
)
_FIRST_ACTIONS: Final = (
    *("key", "type", "mouse_move", "left_click", "left_click_drag", "right_click"),
    *("middle_click", "double_click", "screenshot", "cursor_position"),
)
_LATER_ACTIONS: Final = (
    *("left_mouse_down", "left_mouse_up", "scroll", "hold_key", "wait", "triple_click"),
)
_COMPUTER_TEXT: Final = (
    "Controls the mouse and keyboard of a computer, and takes screenshots of its screen."
)


def _computer(*actions: str) -> tuple[str, _Json]:
    properties = {"action": _commands(*actions), "coordinate": _POINT, "text": _STRING}
    if "scroll" in actions:
        properties |= {
            "start_coordinate": _POINT,
            "scroll_direction": _commands("up", "down", "left", "right"),
            "scroll_amount": _INTEGER,
            "duration": {"type": "number", "description": "In seconds."},
        }
    if "zoom" in actions:
        corners = "x and y of the top left corner, then of the bottom right one."
        properties["region"] = {**_POINT, "description": corners}
    return _COMPUTER_TEXT, _object(("action",), **properties)


_NAMES: Final = {
    "bash_20241022": "bash",
    "bash_20250124": "bash",
    "text_editor_20241022": "str_replace_editor",
    "text_editor_20250124": "str_replace_editor",
    "text_editor_20250429": "str_replace_based_edit_tool",
    "text_editor_20250728": "str_replace_based_edit_tool",
    "memory_20250818": "memory",
    "computer_20241022": "computer",
    "computer_20250124": "computer",
    "computer_20251124": "computer",
}
# The description and the schema, by the tool's type.
_PUBLISHED: Final[Mapping[str, tuple[str, _Json]]] = {
    "bash_20241022": _BASH,
    "bash_20250124": _BASH,
    "text_editor_20241022": _editor(*_EDIT_COMMANDS, "undo_edit", inserted="new_str"),
    "text_editor_20250124": _editor(*_EDIT_COMMANDS, "undo_edit", inserted="new_str"),
    "text_editor_20250429": _editor(*_EDIT_COMMANDS, inserted="insert_text"),
    "text_editor_20250728": _editor(*_EDIT_COMMANDS, inserted="insert_text"),
    "memory_20250818": _MEMORY,
    "computer_20241022": _computer(*_FIRST_ACTIONS),
    "computer_20250124": _computer(*_FIRST_ACTIONS, *_LATER_ACTIONS),
    "computer_20251124": _computer(*_FIRST_ACTIONS, *_LATER_ACTIONS, "zoom"),
}
# Tools of these kinds are run by the caller too, but in a form that is not published here.
_CALLERS: Final = ("bash_", "text_editor_", "memory_", "computer_", "browser_")
_SERVERS: Final = ("bash_code_execution", "text_editor_code_execution")


def is_published(kind: str) -> bool:
    """Whether the type names a tool whose schema is known here."""
    return kind in _PUBLISHED


def is_unsupported(kind: str) -> bool:
    """Whether the type names a tool that the caller runs and whose schema is not known here."""
    return kind.startswith(_CALLERS) and not kind.startswith(_SERVERS) and not is_published(kind)


def with_schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The tool of a published type with the description and the schema that a model needs."""
    description, schema = _PUBLISHED[str(tool["type"])]
    width, height = tool.get("display_width_px"), tool.get("display_height_px")
    if isinstance(width, int) and isinstance(height, int):
        description += f" The screen is {width} pixels wide and {height} pixels high."
    name = _NAMES[str(tool["type"])]
    return {"name": name, "description": description, "input_schema": schema, **tool}
