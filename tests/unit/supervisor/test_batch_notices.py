"""What `anyclaudectl status` says where parallel answers are computed one by one."""

import pytest

from anyclaude.supervisor.status import batch_notices
from anyclaude.worker.v1.worker_pb2 import BatchStatus


def test_the_reason_is_named() -> None:
    """A model that cannot, and a device where only shared passes have other last bits."""
    (unsupported,) = batch_notices(BatchStatus(unsupported="TypeError: no such layer"))
    assert "TypeError: no such layer" in unsupported
    (inexact,) = batch_notices(BatchStatus(inexact_rows=[2, 3], largest_difference=0.002))
    assert "2.0e-03" in inexact


@pytest.mark.parametrize(
    "batch",
    [
        BatchStatus(),
        BatchStatus(exact_rows=[2], inexact_rows=[3]),
        BatchStatus(inexact_rows=[2], passes=7),
    ],
    ids=["not tried", "exact for two", "allowed"],
)
def test_nothing_is_said_where_passes_are_shared(batch: BatchStatus) -> None:
    """Also while only one answer runs, and where other last bits are allowed."""
    assert batch_notices(batch) == []
