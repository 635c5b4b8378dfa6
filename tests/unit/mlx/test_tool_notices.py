"""What status reports if a model makes no tool calls."""

import pytest

from anyclaude.supervisor.status import tool_notices
from anyclaude.worker.v1.worker_pb2 import ModelInfo


@pytest.mark.parametrize("path", ["/models/plain", ""])
def test_a_model_without_calls_is_named(path: str) -> None:
    """The notice says what is missing, and names the next command for a model of our own."""
    (notice,) = tool_notices(ModelInfo(display_name="Plain", path=path, has_tools=False))
    assert notice.startswith("Plain makes no tool calls")
    assert ("anyclaudectl model check" in notice) == bool(path)


@pytest.mark.parametrize("model", [ModelInfo(has_tools=True), ModelInfo()])
def test_other_models_are_not(model: ModelInfo) -> None:
    """A model that calls tools, or of which it is not known, needs no notice."""
    assert tool_notices(model) == []
