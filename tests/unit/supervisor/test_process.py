"""How the end of a process is described."""

import pytest

from anyclaude.supervisor.process import signal_name


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (40, "signal 40")])
def test_every_signal_has_a_name(number: int, name: str) -> None:
    """Also one that Python does not name, so that the death of a child is never missed."""
    assert signal_name(number) == name
