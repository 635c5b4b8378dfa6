"""docs/settings.md lists every setting with its default, and every variable with its setting."""

import json
import re
from typing import Final

from anyclaude.runtime.loading import ENVIRONMENT_NAMES, load
from anyclaude.runtime.settings import Settings
from anyclaude.runtime.upstreams import UpstreamSettings
from tests.checkout import ROOT

_PAGE: Final = (ROOT / "docs" / "settings.md").read_text()


def _declared() -> dict[str, object]:
    """Every setting with its default; `NAME` stands for the name of any upstream."""
    sections = Settings().model_dump(mode="json", exclude={"upstreams"})
    sections["upstreams.NAME"] = UpstreamSettings().model_dump(mode="json")
    return {
        f"{name}.{key}" if key else name: value
        for name, section in sections.items()
        for key, value in (section.items() if isinstance(section, dict) else [("", section)])
    }


def test_every_setting_has_a_row() -> None:
    """The rows are the declarations: none is missing, none is left over, each default is right."""
    rows = re.findall(r"^\| `([A-Za-z_.]+)` \| `(.*?)` \| .+ \|$", _PAGE, re.MULTILINE)

    assert {key: json.loads(default) for key, default in rows} == _declared()


def test_every_variable_has_a_row() -> None:
    """Variables stand in the order in which they win."""
    rows = re.findall(r"^\| (`[A-Z].*?) \| `([a-z_.-]+)` \|$", _PAGE, re.MULTILINE)
    listed = [(name, key) for names, key in rows for name in re.findall(r"`(\w+)`", names)]

    assert listed == list(ENVIRONMENT_NAMES)


def test_the_example_loads(tmp_path) -> None:
    """The example of the page is a valid file."""
    file = tmp_path / "config.toml"
    (example,) = re.findall(r"```toml\n(.*?)```", _PAGE, re.DOTALL)
    file.write_text(example)

    assert load(file, {}).settings.cache.disk_limit_bytes == 50_000_000_000
