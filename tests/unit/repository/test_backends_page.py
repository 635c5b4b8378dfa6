"""docs/backends.md: its table has the presets, its example loads, its variables exist."""

import re

from anyclaude.runtime.loading import ENVIRONMENT_NAMES, load
from anyclaude.runtime.upstreams import default_upstreams
from tests.checkout import ROOT

_PAGE = (ROOT / "docs" / "backends.md").read_text()


def test_the_table_is_the_presets():
    """The table has every preset with address, key variable and dialect."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) \| `(\w+)` \| (.*?) \|$", _PAGE, re.MULTILINE)
    listed = {name: (address, key, dialect) for name, address, key, dialect in rows}
    assert listed == {
        name: (
            f"`{preset.base_url}`" if preset.base_url else "none: our own worker answers",
            preset.api_key_env,
            "found by asking" if preset.dialect == "auto" else preset.dialect,
        )
        for name, preset in default_upstreams().items()
    }


def test_the_example_loads(tmp_path):
    """The example on the page is valid."""
    file = tmp_path / "config.toml"
    (example,) = re.findall(r"```toml\n(.*?)```", _PAGE, re.DOTALL)
    file.write_text(example)
    upstreams = load(file, {}).settings.upstreams
    assert upstreams["big"].models == {"claude-haiku-*": "qwen3-4b"}
    assert upstreams["lmstudio"].base_url == "http://192.168.1.20:1234"


def test_every_variable_is_named():
    """Every variable that configures an upstream is on the page."""
    names = {name for name, key in ENVIRONMENT_NAMES if key.startswith("upstreams.")}
    assert {name for name in names if f"`{name}`" not in _PAGE} == set()
