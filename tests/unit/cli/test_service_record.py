"""What `service install` writes into config.toml, and what it does not change."""

import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from anyclaude.cli.command import CommandError, ExitCode
from anyclaude.cli.service.record import Recorded, found_in, record
from anyclaude.runtime import loading


def _wanted(**values: Any) -> list[Recorded]:
    return [Recorded("X", key.replace("__", "."), value) for key, value in values.items()]


def _recorded(file: Path, text: str, **values: Any) -> str:
    file.write_text(text)
    record(file, _wanted(**values))
    return file.read_text()


def test_a_new_file(tmp_path: Path) -> None:
    """A new file is private and has top-level keys before the tables."""
    file = tmp_path / "new" / "config.toml"

    record(file, _wanted(server__port=50000, model__path='/m/"q"', mode="mlx-lm"))

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert tomllib.loads(file.read_text()) == {
        "mode": "mlx-lm",
        "server": {"port": 50000},
        "model": {"path": '/m/"q"'},
    }


def test_existing_content_stays(tmp_path: Path) -> None:
    """Comments, order and other keys stay; a changed value keeps its comment."""
    text = (
        "# mine\n\n[server]  # http\nping_interval_seconds = 2.0\n"
        "port = 49152   # the usual\n\n# caches\n[cache]\nmax_prefixes = 3\n"
    )

    result = _recorded(tmp_path / "c.toml", text, server__port=50000, mode="claude")

    assert result == (
        '# mine\nmode = "claude"\n\n[server]  # http\nping_interval_seconds = 2.0\n'
        "port = 50000   # the usual\n\n# caches\n[cache]\nmax_prefixes = 3\n"
    )


def test_a_key_joins_its_table(tmp_path: Path) -> None:
    """A missing key is added at the end of its table, not of the file."""
    result = _recorded(
        tmp_path / "c.toml", "[model]\nname = 'n'\n\n[server]\nport = 1\n", model__path="/m"
    )

    assert result == "[model]\nname = 'n'\npath = \"/m\"\n\n[server]\nport = 1\n"


def test_nothing_new_is_no_write(tmp_path: Path) -> None:
    """If the file has all values already, it is not written."""
    file = tmp_path / "c.toml"
    file.write_text("[server]\nport = 50000")
    before = file.stat().st_mtime_ns

    assert record(file, _wanted(server__port=50000)) == []
    assert file.stat().st_mtime_ns == before
    assert record(file, []) == []


@pytest.mark.parametrize(
    "text",
    [
        "server = { port = 1, host = 'localhost' }  # inline\n",
        'server.port = 1  # dotted\nserver.host = "localhost"\nmode = "x"\n',
        "mode = '''\nx'''\n[server]\nhost = 'localhost'\nport = 1\n",
        'note = """\n[server]\nport = 7\n"""\n[server]\nport = 1\nhost = "localhost"\n',
        "[server]\nhost = 'localhost'\n[model]\nname = 'n'\n[server.more]\nkept = [1, 2]\n",
    ],
    ids=["inline", "dotted", "multi-line", "a table in a string", "split"],
)
def test_every_form_of_toml_is_edited(tmp_path: Path, text: str) -> None:
    """However the user writes a table, the new values are added and everything else stays."""
    expected = tomllib.loads(text)
    expected["mode"] = "mlx-lm"
    expected["server"]["port"] = 50000

    result = _recorded(tmp_path / "c.toml", text, server__port=50000, mode="mlx-lm")

    assert tomllib.loads(result) == expected
    assert re.findall("#.*", result) == re.findall("#.*", text)


def test_a_file_that_cannot_take_the_values_is_left_alone(tmp_path: Path) -> None:
    """A value in place of a table is refused with what to write; exit 5."""
    file = tmp_path / "c.toml"
    file.write_text("server = 1\n")

    with pytest.raises(CommandError, match=r"server\.port = 50000, mode = \"mlx-lm\"") as caught:
        record(file, _wanted(server__port=50000, mode="mlx-lm"))

    assert caught.value.code is ExitCode.PRECONDITION
    assert file.read_text() == "server = 1\n"


def test_the_shell_is_read_as_the_daemon_reads_it(tmp_path: Path) -> None:
    """Values are typed, names have their priority, and a model folder becomes absolute."""
    (tmp_path / "models").mkdir()
    shell = {
        "ANYCLAUDE_PORT": "50000",
        "ANYCLAUDE_MODEL": "models",
        "MLX_MODEL_PATH": "/other",
        "ANTHROPIC_API_KEY": "sk",
        "PATH": "/bin",
    }

    found = found_in(shell, tmp_path / "none.toml", tmp_path)

    assert found == [
        Recorded("ANYCLAUDE_PORT", "server.port", 50000),
        Recorded("ANYCLAUDE_MODEL", "model.path", str(tmp_path / "models")),
    ]


def test_a_hub_id_stays_a_hub_id(tmp_path: Path) -> None:
    """A model that is not a folder is recorded as given."""
    found = found_in({"MLX_LM_MODEL": "mlx-community/x"}, tmp_path / "none.toml", tmp_path)

    assert found == [Recorded("MLX_LM_MODEL", "model.path", "mlx-community/x")]


@pytest.mark.parametrize(
    ("variable", "value"), [("SOME_API_KEY", "sk"), ("SOME_URL", "http://me:word@127.0.0.1")]
)
def test_secrets_are_never_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """A variable named like a secret, or an address that contains one, is not recorded."""
    monkeypatch.setattr(loading, "ENVIRONMENT_NAMES", ((variable, "model.name"),))

    assert found_in({variable: value}, tmp_path / "none.toml", tmp_path) == []


def test_upstream_addresses_are_recorded(tmp_path: Path) -> None:
    """A server's address is recorded in a table of its own, whose name may have a dash."""
    file = tmp_path / "c.toml"
    found = found_in({"MLX_LM_URL": "http://127.0.0.1:8080"}, file, tmp_path)

    record(file, found)
    record(file, found)

    assert file.read_text() == '[upstreams.mlx-lm]\nbase_url = "http://127.0.0.1:8080"\n'


def test_values_that_do_not_fit(tmp_path: Path) -> None:
    """The message names the variable; nothing is returned to be written."""
    with pytest.raises(CommandError, match="ANYCLAUDE_PORT"):
        found_in({"ANYCLAUDE_PORT": "many"}, tmp_path / "none.toml", tmp_path)
