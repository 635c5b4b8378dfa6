"""Modes: the catalog, the mode at start, and the saved choice."""

import json

import pytest

from anyclaude.runtime.loading import load
from anyclaude.runtime.settings import Settings
from anyclaude.supervisor import modes
from anyclaude.supervisor.changes import Changes
from anyclaude.supervisor.modes import CurrentMode, ModeMissingError, UnknownModeError

MODES = modes.catalog(Settings())
# A table without an address.
BARE = '[upstreams.bare]\nmodel = "m"'


@pytest.fixture
def mode_file(tmp_path):
    return tmp_path / "mode.json"


def start(tmp_path, config="", environ=None, flag=None):
    file = tmp_path / "config.toml"
    file.write_text(config)
    loaded = load(file, environ or {}, {"mode": flag})
    return modes.initial(loaded, tmp_path / "mode.json").name


def test_the_kept_mode_stands_between_environment_and_file(tmp_path, mode_file):
    """Priority: flag, environment, saved mode, config file, default."""
    assert start(tmp_path) == "mlx-lm"
    assert start(tmp_path, 'mode = "lmstudio"') == "lmstudio"
    modes.save(MODES["mlx-lm"], mode_file)
    assert start(tmp_path, 'mode = "lmstudio"') == "mlx-lm"
    modes.save(MODES["lmstudio"], mode_file)
    assert start(tmp_path) == "lmstudio"
    assert start(tmp_path, environ={"ANYCLAUDE_MODE": "mlx"}) == "mlx-lm"
    assert start(tmp_path, environ={"ANYCLAUDE_MODE": "lmstudio"}, flag="mlx-lm") == "mlx-lm"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"mode": "bare"}', '{"mode": "gone"}', '{"mode": 3}']
)
def test_a_damaged_saved_mode_is_ignored(tmp_path, mode_file, content):
    """A damaged or unknown saved mode is ignored."""
    mode_file.write_text(content)
    assert start(tmp_path, BARE) == "mlx-lm"


def test_a_configured_mode_must_be_servable(tmp_path):
    """A configured mode that nothing can serve is an error, never replaced silently."""
    with pytest.raises(UnknownModeError, match="Did you mean mlx-lm"):
        start(tmp_path, 'mode = "mlx-ml"')
    with pytest.raises(ModeMissingError, match="has no address"):
        start(tmp_path, BARE, flag="bare")


def of(**tables):
    return modes.catalog(Settings.model_validate({"upstreams": tables}))


def test_each_preset_is_a_mode():
    """Every preset can be chosen without configuration; our own mode is the first."""
    assert list(MODES) == [
        *("mlx-lm", "lmstudio", "vllm", "llama-cpp", "ollama", "openrouter", "claude", "auto"),
    ]
    assert not any(mode.missing for mode in MODES.values())
    assert {name for name, mode in MODES.items() if mode.is_remote} == {"openrouter", "claude"}
    assert [name for name, mode in MODES.items() if mode.is_passthrough] == ["claude"]
    assert MODES["mlx-lm"].worker == "mlx"


def test_each_table_of_the_configuration_is_a_mode():
    """A server in the configuration is a mode that shows if prompts leave the machine."""
    near, far = {"base_url": "http://127.0.0.1:9"}, {"base_url": "http://10.0.0.9:9"}
    found = of(near=near, far=far, bridge={"kind": "claude"})
    assert not found["near"].is_remote
    assert found["far"].is_remote
    assert "leave this machine" in found["far"].description
    assert found["bridge"].is_passthrough


def test_a_mode_that_describes_images_may_leave_the_machine():
    """Our own mode then does as well, and other modes do not."""
    settings = Settings.model_validate({"vision": {"mode": "openrouter"}})
    assert modes.leaves_machine(MODES["mlx-lm"], MODES, settings)
    assert not modes.leaves_machine(MODES["lmstudio"], MODES, settings)
    assert not modes.leaves_machine(MODES["mlx-lm"], MODES, Settings())


@pytest.mark.parametrize("word", ["lmstudoi", "claude", "mlx-lm", "auto"])
def test_images_are_described_by_a_server(word):
    """A mode that does not exist, or that has no server which describes, is refused by name."""
    with pytest.raises(UnknownModeError, match=r"vision\.mode: .*" + word):
        modes.checked_catalog(Settings.model_validate({"vision": {"mode": word}}))


def test_a_configured_server_serves_mlx_lm():
    """With an address, mlx-lm is relayed, and its caches are shown as that server's."""
    relayed = of(**{"mlx-lm": {"base_url": "http://127.0.0.1:8080"}})["mlx-lm"]
    assert relayed.is_relayed
    assert "caches are not ours" in relayed.description


def test_setting_a_mode_saves_it_and_notifies_watchers(mode_file):
    """The choice is saved atomically, and watchers are notified."""
    changes = Changes()
    current = CurrentMode(MODES["mlx-lm"], mode_file, changes)
    current.set(MODES["lmstudio"])
    assert current.get().name == "lmstudio"
    assert changes.version == 1
    assert json.loads(mode_file.read_text()) == {"mode": "lmstudio"}
    assert [path.name for path in mode_file.parent.iterdir()] == ["mode.json"]


def test_a_mode_that_cannot_be_saved_is_not_set(tmp_path):
    """If the choice cannot be saved, the old mode stays in effect."""
    (tmp_path / "state").write_text("a file where the folder should be")
    current = CurrentMode(MODES["mlx-lm"], tmp_path / "state" / "mode.json", Changes())
    with pytest.raises(OSError, match="state"):
        current.set(MODES["lmstudio"])
    assert current.get().name == "mlx-lm"
