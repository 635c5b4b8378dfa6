"""`[upstreams.NAME]`: presets, changes to them, variables, and refused values."""

import pytest

from anyclaude.runtime.loading import SettingsError, load


@pytest.fixture
def file(tmp_path):
    return tmp_path / "config.toml"


def upstreams(file, text="", environ=None):
    file.write_text(text)
    return load(file, environ or {}).settings.upstreams


def test_the_presets_need_no_configuration(file):
    """Every mode of the table has an address before anything is configured."""
    found = upstreams(file)
    assert found["lmstudio"].base_url == "http://127.0.0.1:1234"
    assert found["vllm"].base_url == "http://127.0.0.1:8000"
    assert found["claude"].dialect == "anthropic"
    assert not found["claude"].is_loopback
    assert found["ollama"].is_loopback
    assert found["mlx-lm"].base_url == ""


def test_how_long_a_local_server_is_waited_for(file):
    """Local servers get 2 s to connect, and 120 s of silence once a response has begun."""
    for name in ("lmstudio", "vllm", "llama-cpp", "ollama"):
        found = upstreams(file)[name]
        assert (found.connect_timeout_seconds, found.idle_timeout_seconds) == (2, 120)
        assert found.breaker_failures == 5


def test_a_table_keeps_the_other_values_of_its_preset(file):
    """A table that sets one key keeps the preset's other values."""
    found = upstreams(file, '[upstreams.lmstudio]\nmodel = "qwen3"\n')
    assert found["lmstudio"].model == "qwen3"
    assert found["lmstudio"].base_url == "http://127.0.0.1:1234"


def test_a_table_of_a_new_name_takes_the_preset_of_its_kind(file):
    """A table with a new name gets the preset of its kind."""
    found = upstreams(file, '[upstreams.big]\nkind = "vllm"\nbase_url = "http://10.0.0.2:8000"\n')
    assert found["big"].api_key_env == "VLLM_API_KEY"
    assert not found["big"].is_loopback


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_an_address_may_end_in_v1(file, suffix):
    """An address with or without /v1 and slash is the same."""
    found = upstreams(file, environ={"LMSTUDIO_URL": f"http://127.0.0.1:9{suffix}"})
    assert found["lmstudio"].root == "http://127.0.0.1:9"


def test_the_variables_people_already_export_are_read(file):
    """The newest name of a variable wins over its older ones."""
    found = upstreams(
        file,
        environ={
            "LOCAL_URL": "http://localhost:1",
            "LMSTUDIO_URL": "http://localhost:2",
            "LMSTUDIO_MODEL": "m",
            "LMSTUDIO_CONTEXT_LENGTH": "8192",
            "MLX_LM_URL": "http://localhost:8081/v1",
            "OPENROUTER_MODEL": "qwen/qwen3-coder",
        },
    )
    assert found["lmstudio"].base_url == "http://localhost:2"
    assert (found["lmstudio"].model, found["lmstudio"].context_window_tokens) == ("m", 8192)
    assert found["mlx-lm"].root == "http://localhost:8081"
    assert found["openrouter"].model == "qwen/qwen3-coder"


def test_model_names_with_dots_survive(file):
    """Keys of `models` may contain dots and stars."""
    text = '[upstreams.vllm.models]\n"claude-haiku-4.5*" = "qwen2.5"\n'
    assert upstreams(file, text)["vllm"].models == {"claude-haiku-4.5*": "qwen2.5"}
    entries = {key: value for key, value, _ in load(file, {}).entries()}
    assert entries["upstreams.vllm.models"] == {"claude-haiku-4.5*": "qwen2.5"}


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('base_url = "localhost:1234"', "http://127.0.0.1:1234"),
        ('base_url = "http://me:secret@host"', "api_key_env"),
        ('headers = {Authorization = "Bearer secret"}', "api_key_file"),
        ('api_key_env = "sk-secret"', "name of an environment variable"),
        ("base_ur = 1", "base_url"),
        ('kind = "lmstudioo"', "lmstudio"),
    ],
)
def test_invalid_values_are_refused_with_valid_ones(file, line, word):
    """Errors name the wrong key, address or kind; API keys in the file are refused."""
    with pytest.raises(SettingsError) as error:
        upstreams(file, f"[upstreams.lmstudio]\n{line}\n")
    assert word in str(error.value)
    assert "secret" not in str(error.value)


def test_a_proxy_is_shown_without_its_credentials(file):
    """`config` shows a proxy without credentials, while the relay gets the whole address."""
    url = "http://user:p%40ss@proxy.test:3128"
    file.write_text(f'[upstreams.openrouter]\nproxy = "{url}"\n')
    loaded = load(file, {})
    shown = {key: value for key, value, _ in loaded.entries()}
    assert shown["upstreams.openrouter.proxy"] == "http://***@proxy.test:3128"
    assert shown["upstreams.claude.proxy"] == ""
    assert loaded.settings.upstreams["openrouter"].proxy == url
    assert "p%40ss" not in repr(loaded.settings)


@pytest.mark.parametrize("proxy", ["proxy.test:3128", "socks5://proxy.test", "http://"])
def test_an_unusable_proxy_is_refused(file, proxy):
    """The error says what is expected, and does not repeat a possible password."""
    with pytest.raises(SettingsError, match=r"upstreams\.vllm\.proxy.*http://proxy") as error:
        upstreams(file, f'[upstreams.vllm]\nproxy = "{proxy}"\n')
    assert proxy == "http://" or f'"{proxy}"' not in str(error.value)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("localhost.example", False),
    ],
)
def test_what_is_loopback(file, host, is_loopback):
    """Exactly the addresses that never leave the machine count as loopback."""
    found = upstreams(file, environ={"LMSTUDIO_URL": f"http://{host}:9"})
    assert found["lmstudio"].is_loopback is is_loopback
