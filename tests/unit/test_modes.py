"""Which mode a daemon starts in."""

import json

import pytest

from anyclaude.daemon import modes
from anyclaude.daemon.changes import Changes
from anyclaude.daemon.modes import CurrentMode, Mode, ModeMissingError, UnknownModeError
from anyclaude.runtime.settings import load


@pytest.fixture(autouse=True)
def second_mode(monkeypatch):
    """A build that can serve two modes, so that a choice can be seen."""
    monkeypatch.setitem(modes.MODES, "lmstudio", Mode("lmstudio", "", worker="relay"))


@pytest.fixture
def mode_file(tmp_path):
    return tmp_path / "mode.json"


def start(tmp_path, config="", environ=None, flag=None):
    file = tmp_path / "config.toml"
    file.write_text(config)
    loaded = load(file, environ or {}, {"mode": flag})
    return modes.initial(loaded, tmp_path / "mode.json").name


def test_the_kept_mode_stands_between_environment_and_file(tmp_path, mode_file):
    """Flag, environment, kept mode, config file, default: in this order."""
    assert start(tmp_path) == "mlx-lm"
    assert start(tmp_path, 'mode = "lmstudio"') == "lmstudio"
    modes.keep(modes.MODES["mlx-lm"], mode_file)
    assert start(tmp_path, 'mode = "lmstudio"') == "mlx-lm"
    modes.keep(modes.MODES["lmstudio"], mode_file)
    assert start(tmp_path) == "lmstudio"
    assert start(tmp_path, environ={"ANYCLAUDE_MODE": "mlx"}) == "mlx-lm"
    assert start(tmp_path, environ={"ANYCLAUDE_MODE": "lmstudio"}, flag="mlx-lm") == "mlx-lm"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"mode": "claude"}', '{"mode": "gone"}', '{"mode": 3}']
)
def test_a_doubtful_kept_mode_is_ignored(tmp_path, mode_file, content):
    """Damage, or a mode of another build, never keeps the service down."""
    mode_file.write_text(content)
    assert start(tmp_path) == "mlx-lm"


def test_a_configured_mode_must_be_servable(tmp_path):
    """What somebody asked for is never replaced silently."""
    with pytest.raises(UnknownModeError, match="Did you mean mlx-lm"):
        start(tmp_path, 'mode = "mlx-ml"')
    with pytest.raises(ModeMissingError, match="not part of this build"):
        start(tmp_path, flag="claude")


def test_setting_a_mode_keeps_it_and_tells_the_watchers(mode_file):
    """The choice is on disk whole, with no temporary file left, and watchers wake."""
    changes = Changes()
    current = CurrentMode(modes.MODES["mlx-lm"], mode_file, changes)
    current.set(modes.MODES["lmstudio"])
    assert current.get().name == "lmstudio"
    assert changes.version == 1
    assert json.loads(mode_file.read_text()) == {"mode": "lmstudio"}
    assert [path.name for path in mode_file.parent.iterdir()] == ["mode.json"]


def test_a_mode_that_cannot_be_kept_is_not_taken(tmp_path):
    """A full or missing disk leaves the old mode in place, in memory and in effect."""
    current = CurrentMode(modes.MODES["mlx-lm"], tmp_path / "gone" / "mode.json", Changes())
    with pytest.raises(FileNotFoundError):
        current.set(modes.MODES["lmstudio"])
    assert current.get().name == "mlx-lm"
