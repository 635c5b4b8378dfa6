"""Which model served last: a change is reported with its effect, also after restarts."""

from pathlib import Path

import pytest

from anyclaude.mlx.served import ModelChange, note_model

STORED = {"fingerprint-a": (34, 1_200_000), "fingerprint-b": (1, 10)}


def test_a_change_is_reported_until_the_next(tmp_path: Path) -> None:
    """Each change is reported, after a restart too, with what is on disk of the other model."""
    file = tmp_path / "served.json"

    def note(model: str, now: float) -> ModelChange | None:
        return note_model(file, model, f"fingerprint-{model}", STORED, now)

    assert note("a", 1.0) is None
    assert note("a", 2.0) is None
    change = ModelChange("a", 3.0, 34, 1_200_000)
    assert note("b", 3.0) == change
    assert note("b", 4.0) == change
    assert note("a", 5.0) == ModelChange("b", 5.0, 1, 10)


def test_caches_that_are_gone(tmp_path: Path) -> None:
    """The report says when nothing is stored of the other model."""
    file = tmp_path / "served.json"
    note_model(file, "a", "fingerprint-a", {}, 1.0)

    assert note_model(file, "b", "fingerprint-b", {}, 2.0) == ModelChange("a", 2.0, 0, 0)


def test_the_file_is_private(tmp_path: Path) -> None:
    """Only the owner can read the file, since it names models."""
    file = tmp_path / "served.json"
    note_model(file, "a", "fingerprint-a", {}, 1.0)

    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense", '{"model": 1, "change": [1]}'])
def test_a_damaged_file_is_replaced(content: str, tmp_path: Path) -> None:
    """A damaged file only loses the report, and is replaced."""
    file = tmp_path / "served.json"
    file.write_text(content)

    assert note_model(file, "a", "fingerprint-a", {}, 1.0) is None
    assert note_model(file, "b", "fingerprint-b", {}, 2.0) == ModelChange("a", 2.0, 0, 0)
