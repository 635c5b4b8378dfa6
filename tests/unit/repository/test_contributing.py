"""CONTRIBUTING.md: each recipe names at most four files, and its examples are in the code."""

import re

import pytest

from tests.checkout import ROOT

_PAGE = (ROOT / "CONTRIBUTING.md").read_text()
_RECIPES = dict(re.findall(r"^## (Add [^\n]+)\n(.*?)(?=^## |\Z)", _PAGE, re.MULTILINE | re.DOTALL))


def test_there_are_four_recipes() -> None:
    """A verb, a setting, an upstream kind and a model family."""
    assert list(_RECIPES) == [
        "Add a cache verb",
        "Add a setting",
        "Add an upstream kind",
        "Add a model family",
    ]


@pytest.mark.parametrize("recipe", _RECIPES)
def test_a_recipe_takes_at_most_four_files(recipe: str) -> None:
    """Each row of its table links one file, by its path."""
    rows = re.findall(r"^\| \[(\S+)\]\((\S+)\) \|", _RECIPES[recipe], re.MULTILINE)

    assert 0 < len(rows) <= 4
    assert all(shown == linked and (ROOT / linked).is_file() for shown, linked in rows)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("workers/anyclaude/mlx/cache_service.py", "_check_label(request.label)"),
        ("ctl/anyclaude/cli/verbs/cache.py", "client.call(client.caches.LabelCache, "),
        ("daemon/anyclaude/runtime/settings.py", "notice_seconds: float = Field(3600.0, ge=0)"),
        (
            "workers/anyclaude/mlx/service.py",
            "self._notice_seconds = settings.cache.notice_seconds",
        ),
        ("daemon/anyclaude/runtime/upstreams.py", 'VLLM = "vllm"'),
        (
            "daemon/anyclaude/runtime/upstreams.py",
            '"vllm": {"base_url": "http://127.0.0.1:8000", "api_key_env": "VLLM_API_KEY"},',
        ),
        (
            "workers/anyclaude/mlx/decode/notations.py",
            '"json_tools": Family('
            """JsonNotation('\\n{"name": "', ('", "arguments": ',), ("}\\n",))),""",
        ),
    ],
)
def test_an_example_is_in_the_code(file: str, line: str) -> None:
    """What the page quotes has not moved or changed."""
    assert line in _PAGE
    assert line in (ROOT / file).read_text()
