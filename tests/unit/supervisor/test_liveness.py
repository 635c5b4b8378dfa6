"""Who counts as stopped, on a virtual clock."""

import random
import subprocess
import sys

import pytest

from anyclaude.runtime.pulse import Phase, Pulse
from anyclaude.runtime.settings import SupervisorSettings
from anyclaude.supervisor.liveness import CHECK_SECONDS, GAP_SECONDS, Liveness, is_debugged

SETTINGS = SupervisorSettings(
    loop_timeout_seconds=15,
    prefill_chunk_timeout_seconds=120,
    decode_turn_timeout_seconds=60,
    command_timeout_seconds=600,
)
BUDGETS = {Phase.PREFILL: 120, Phase.DECODE: 60, Phase.COMMAND: 600}


class World:
    """A child and its judge; time passes only when the test says so."""

    def __init__(self):
        self.now = 1000.0
        self.pulse = Pulse()
        self.liveness = Liveness(SETTINGS, clock=lambda: self.now)

    def judge(self):
        return self.liveness.judge(self.pulse.read())

    def pass_time(self, seconds, *, beats=True, steps=False):
        """Judges at each check for so long; returns the first verdict."""
        end = self.now + seconds
        while self.now < end:
            self.now += CHECK_SECONDS
            if beats:
                self.pulse.beat()
            if steps:
                self.pulse.step(self.pulse.read().phase)
            if verdict := self.judge():
                return verdict
        return ""

    def sleep(self, seconds):
        """Nothing runs: neither the child nor the daemon."""
        self.now += seconds


@pytest.fixture
def world():
    return World()


def test_an_idle_child_lives_for_ever(world):
    """Without work no step is expected; the beats of the event loop are enough."""
    assert world.pass_time(3600) == ""


@pytest.mark.parametrize("phase", BUDGETS)
def test_a_phase_without_a_step_is_noticed_within_its_budget(world, phase):
    """The verdict names the phase, and comes within its budget but not much sooner."""
    world.pulse.step(phase)
    assert world.pass_time(BUDGETS[phase] / 2, steps=True) == ""
    stopped = world.now
    verdict = world.pass_time(3600)
    assert verdict == f"no progress for {BUDGETS[phase]} s in phase {phase.name.lower()}"
    assert 0.9 * BUDGETS[phase] <= world.now - stopped <= BUDGETS[phase]


def test_a_loop_that_stands_still_is_noticed_within_its_budget(world):
    """This is the only sign of a stopped process that had nothing to do."""
    assert world.pass_time(100) == ""
    stopped = world.now
    assert world.pass_time(3600, beats=False) == "its event loop did not run for 15 s"
    assert world.now - stopped <= 15


def test_steps_do_not_stand_in_for_beats(world):
    """A process whose MLX thread works while its sockets are dead answers nobody."""
    world.pulse.step(Phase.DECODE)
    assert "event loop" in world.pass_time(3600, beats=False, steps=True)


def test_twenty_sleeps_of_ten_minutes_end_nobody(world):
    """After each the budgets start again, also if the child needs ten seconds to wake up."""
    world.pulse.step(Phase.DECODE)
    for _ in range(20):
        assert world.pass_time(3, steps=True) == ""
        world.sleep(600)
        assert world.pass_time(10, beats=False) == ""


def test_short_wakings_in_a_long_sleep_do_not_add_up(world):
    """A machine that wakes for two seconds now and then spends no budget of the child."""
    world.pulse.step(Phase.DECODE)
    for _ in range(100):
        assert world.pass_time(2, beats=False) == ""
        world.sleep(60)


def test_a_stopped_daemon_blames_no_child(world):
    """A daemon that was stopped for a minute judges nobody by that minute."""
    world.pulse.step(Phase.PREFILL)
    assert world.pass_time(100) == ""
    world.sleep(60)
    assert world.pass_time(100) == ""


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_jump_of_the_clock_ends_nobody(world, seconds):
    """Neither forwards nor backwards."""
    world.pulse.step(Phase.DECODE)
    assert world.pass_time(30) == ""
    world.now += seconds
    assert world.pass_time(30) == ""


def test_a_late_check_counts(world):
    """Checks of a busy daemon that come somewhat late still spend the budget."""
    late = random.Random(1)
    world.judge()
    began = world.now
    while not world.judge():
        world.now += late.uniform(CHECK_SECONDS, GAP_SECONDS)
    assert world.now - began <= SETTINGS.loop_timeout_seconds + GAP_SECONDS


def test_the_next_process_starts_with_whole_budgets(world):
    """What the process before did not do is not its fault."""
    assert world.pass_time(12, beats=False) == ""
    world.liveness.begin()
    world.pulse = Pulse()
    assert world.pass_time(10, beats=False) == ""


def test_only_a_paused_process_counts_as_debugged():
    """A process that runs is not taken for one that a debugger paused; one that is gone neither."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not is_debugged(process.pid)
        process.communicate(b"\n")
    assert not is_debugged(process.pid)
