"""Settings: layers, origins and errors."""

import pytest

from anyclaude.runtime.loading import SettingsError, load


@pytest.fixture
def file(tmp_path):
    return tmp_path / "config.toml"


def origin_of(loaded, key):
    return {entry[0]: entry[2] for entry in loaded.entries()}[key]


def test_the_defaults_stand_without_a_file(file):
    """A missing file counts as an empty one."""
    loaded = load(file, {})
    assert loaded.settings.server.port == 49152
    assert {origin for _, _, origin in loaded.entries()} == {"default"}


def test_each_layer_beats_the_one_below_it(file):
    """Flags win over environment, file and defaults, in that order; origins are kept."""
    assert (load(file, {}).settings.server.port, origin_of(load(file, {}), "server.port")) == (
        49152,
        "default",
    )
    file.write_text("[server]\nport = 1001\n")
    environ = {"ANYCLAUDE_PORT": "1002"}
    for arguments, port, origin in [
        ((file, {}), 1001, "file"),
        ((file, environ), 1002, "environment"),
        ((file, environ, {"server.port": 1003}), 1003, "flag"),
        ((file, environ, {"server.port": None}), 1002, "environment"),
    ]:
        loaded = load(*arguments)
        assert loaded.settings.server.port == port
        assert origin_of(loaded, "server.port") == origin


def test_any_key_can_be_set_from_the_environment(file):
    """ANYCLAUDE__SECTION__KEY reaches keys that have no name of their own."""
    loaded = load(file, {"ANYCLAUDE__SUPERVISOR__CRASH_LIMIT": "9"})
    assert loaded.settings.supervisor.crash_limit == 9
    assert origin_of(loaded, "supervisor.crash_limit") == "environment"


def test_the_older_model_variables_are_read_last(file):
    """ANYCLAUDE_MODEL wins over its older names."""
    old = {"MLX_LM_MODEL": "old"}
    assert load(file, old).settings.model.path == "old"
    assert load(file, old | {"ANYCLAUDE_MODEL": "new"}).settings.model.path == "new"


def test_an_unknown_key_is_refused_with_a_suggestion(file):
    """The error names the unknown key, its file, and the key that was probably meant."""
    file.write_text("[server]\nprot = 1\n")
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    message = str(caught.value)
    assert str(file) in message
    assert "unknown key server.prot" in message
    assert "Did you mean server.port?" in message


def test_an_unfit_value_names_its_origin(file):
    """The error names the key, the value and its origin."""
    with pytest.raises(SettingsError) as caught:
        load(file, {"ANYCLAUDE_PORT": "99999"})
    assert "environment ANYCLAUDE_PORT: server.port" in str(caught.value)
    assert "99999" in str(caught.value)


def test_every_problem_is_reported_at_once(file):
    """All problems are reported together, one per line."""
    file.write_text('[server]\nport = "x"\n[cache]\nkv_bits = 3\n')
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    assert len(str(caught.value).splitlines()) == 2


def test_broken_toml_names_the_file_and_the_line(file):
    """The error for invalid TOML names the file and the line."""
    file.write_text("mode = \n")
    with pytest.raises(SettingsError, match=r"config\.toml is not valid TOML.*line 1"):
        load(file, {})


def test_a_section_given_as_a_value_is_refused(file):
    """`server = 1` is an error of its key, not a crash."""
    file.write_text("server = 1\n")
    with pytest.raises(SettingsError, match="server"):
        load(file, {"ANYCLAUDE_PORT": "1002"})
