"""The rows of the table: what an endpoint for Claude Code has to get right, one property each."""

from enum import StrEnum

import pytest


class Row(StrEnum):
    """In the order of the table."""

    PATH = "path and query"
    AUTH = "authentication headers"
    VERSION = "anthropic-version, anthropic-beta"
    MODEL = "model"
    MAX_TOKENS = "max_tokens"
    SYSTEM = "system, string and blocks"
    MID_SYSTEM = "role system in messages"
    ODD_TURNS = "consecutive roles, prefill, empty blocks"
    TOOL_HISTORY = "tool_use, tool_result"
    TOOL_SCHEMA = "tool schemas"
    SERVER_TOOLS = "server tools"
    TOOL_CHOICE = "tool_choice"
    THINKING = "thinking"
    OUTPUT_CONFIG = "output_config"
    CONTEXT_MANAGEMENT = "context_management"
    STOP_SEQUENCES = "stop_sequences"
    SAMPLING = "temperature, top_p, top_k"
    METADATA = "metadata.user_id"
    IMAGES = "images, documents"
    UNKNOWN_FIELDS = "unknown fields"
    USAGE = "usage"
    MESSAGE_ID = "message id"
    GRAMMAR = "stream grammar"
    TOOL_STREAM = "streamed tool calls"
    SPECIAL_TOKENS = "special tokens, partial tags"
    PING = "ping, flush"
    DISCONNECT = "disconnect"
    QUEUEING = "queueing"
    ERRORS = "errors"
    COUNT_TOKENS = "count_tokens"
    MODELS = "/v1/models"
    WHOLE = "non-streaming"
    DIAGNOSTICS = "diagnostics"
    HEADERS = "response headers"
    PRIVACY = "privacy"
    PYTHON_SDK = "official client, python"
    TYPESCRIPT_SDK = "official client, typescript"


def row(which: Row) -> pytest.MarkDecorator:
    """Puts a test, or all tests of a module, into a row."""
    return pytest.mark.row(which)
