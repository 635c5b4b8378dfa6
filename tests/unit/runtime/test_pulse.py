"""The counters that a child shares with its daemon."""

import asyncio
import os
import subprocess
import sys

from anyclaude.runtime import pulse
from anyclaude.runtime.pulse import Counts, Phase, Pulse
from tests.waiting import until

_CHILD = """
import sys
from anyclaude.runtime.pulse import Phase, Pulse

pulse = Pulse(int(sys.argv[1]))
pulse.beat()
pulse.step(Phase.PREFILL)
pulse.step(Phase.DECODE)
"""


def test_another_process_counts_and_this_one_reads():
    """What a child counts is seen through the inherited descriptor, also after the child ended."""
    counters, fd = Pulse.create()
    try:
        assert counters.read() == Counts(0, 0, Phase.IDLE)
        subprocess.run([sys.executable, "-c", _CHILD, str(fd)], pass_fds=[fd], check=True)
    finally:
        os.close(fd)
    assert counters.read() == Counts(1, 2, Phase.DECODE)


def test_a_running_loop_beats(monkeypatch):
    """The event loop beats again and again for as long as it runs."""
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.001)
    counters = Pulse()

    async def beat() -> None:
        counters.keep_beating()
        await until(lambda: counters.read().beats >= 3)

    asyncio.run(beat())
