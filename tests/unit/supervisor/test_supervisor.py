"""The supervisor's table, on a virtual clock."""

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from anyclaude.runtime.settings import SupervisorSettings
from anyclaude.supervisor.supervisor import Event, Exit, State, Supervisor

SETTINGS = SupervisorSettings(
    start_timeout_seconds=100,
    stop_timeout_seconds=10,
    abort_timeout_seconds=5,
    backoff_initial_seconds=1,
    backoff_max_seconds=8,
    stable_seconds=60,
    crash_limit=5,
    crash_window_seconds=120,
)
CRASH = Exit(1, "", "exited with code 1", "tail")
KILLED = Exit(None, "SIGKILL", "ended by SIGKILL")


class World:
    """Records effects; time passes only when the test says so."""

    def __init__(self, settings=SETTINGS, random=0.5):
        self.now = 1000.0
        self.calls = []
        self.timer = None
        self.alive = False
        self.changes = 0
        self.supervisor = Supervisor(
            settings, self, clock=lambda: self.now, random=lambda: random, first_generation=7
        )

    def spawn(self, generation):
        assert not self.alive, "two processes at once"
        self.alive = True
        self.calls.append(f"spawn {generation}")

    def terminate(self):
        self.calls.append("terminate")

    def abort(self):
        self.calls.append("abort")

    def kill(self):
        self.calls.append("kill")

    def start_timer(self, seconds, event):
        assert self.timer is None, "two timers at once"
        self.timer = (self.now + seconds, event)

    def stop_timer(self):
        self.timer = None

    def changed(self):
        self.changes += 1

    @property
    def state(self):
        return self.supervisor.state

    def send(self, *events):
        for event in events:
            self.supervisor.handle(event)

    def stall(self):
        self.supervisor.handle(Event.STALLED, why="no progress")

    def exit(self, exit_=CRASH):
        self.alive = False
        self.supervisor.handle(Event.EXITED, exit_)

    def ring(self):
        at, event = self.timer
        self.now, self.timer = max(self.now, at), None
        self.supervisor.handle(event)


@pytest.fixture
def world():
    return World()


def test_a_spawned_child_becomes_ready(world):
    """Spawn and ready lead through STARTING to READY, with the times noted."""
    world.send(Event.SPAWN)
    world.now += 3
    world.send(Event.READY)
    assert world.state is State.READY
    assert world.calls == ["spawn 7"]
    assert world.timer is None
    assert world.supervisor.start_seconds == 3


def test_a_dead_child_starts_again_after_a_growing_delay(world):
    """Each death before stability doubles the delay, up to its cap."""
    world.send(Event.SPAWN)
    delays = []
    for _ in range(4):
        world.exit()
        delays.append(world.timer[0] - world.now)
        world.ring()
    assert delays == [1, 2, 4, 8]
    assert world.supervisor.generation == 11
    assert world.supervisor.restart_count == 4


@pytest.mark.parametrize(("random", "delay"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_the_delay_is_spread_by_a_fifth(random, delay):
    """Jitter moves the delay by at most 20 % either way."""
    world = World(random=random)
    world.send(Event.SPAWN)
    world.exit()
    assert world.timer[0] - world.now == pytest.approx(delay)


def test_a_stable_child_is_forgiven(world):
    """A death after stable_seconds READY waits for the initial delay again."""
    world.send(Event.SPAWN)
    world.exit()
    world.ring()
    world.send(Event.READY)
    world.now += 60
    world.exit(KILLED)
    assert world.timer[0] - world.now == 1


def test_a_crash_loop_ends_in_fatal(world):
    """The crash_limit-th death in the window gives up, after exactly that many starts."""
    world.send(Event.SPAWN)
    for _ in range(4):
        world.exit()
        world.ring()
    world.exit()
    assert world.state is State.FATAL
    assert world.supervisor.generation == 11
    assert world.supervisor.last_exit == CRASH


def test_after_a_crash_loop_one_try_follows_each_long_pause(world):
    """A try that fails gives up again at once; one that is stable ends the crash loop."""
    world.send(Event.SPAWN)
    for _ in range(4):
        world.exit()
        world.ring()
    for generation in (12, 13, 14):
        world.exit()
        assert world.state is State.FATAL
        assert world.supervisor.retry_at == world.now + 900
        world.ring()
        assert (world.state, world.supervisor.generation) == (State.STARTING, generation)
    world.send(Event.READY)
    world.now += 60
    world.exit()
    assert world.state is State.BACKOFF
    world.ring()
    world.exit()
    assert world.state is State.BACKOFF


def test_deaths_after_stable_readiness_never_add_up(world):
    """A child that serves for a minute before each death is started for ever."""
    settings = SETTINGS.model_copy(update={"crash_window_seconds": 3600})
    world = World(settings)
    world.send(Event.SPAWN)
    for _ in range(20):
        world.send(Event.READY)
        world.now += 60
        world.exit()
        assert world.state is State.BACKOFF
        world.ring()


def test_the_latest_twenty_deaths_are_kept(world):
    """Each with its time and cause; exits that were asked for are not among them."""
    world.send(Event.SPAWN)
    for number in range(25):
        world.now += 121
        world.exit(Exit(1, "", f"death {number}", "tail"))
        world.ring()
    world.send(Event.READY, Event.RESTART)
    world.exit(Exit(0, "", "exited with code 0"))
    kept = world.supervisor.deaths
    assert [exit_.reason for _, exit_ in kept] == [f"death {number}" for number in range(5, 25)]
    assert kept[-1][0] - kept[0][0] > 19 * 121


def test_old_deaths_do_not_count(world):
    """Deaths further apart than the window never add up to FATAL."""
    world.send(Event.SPAWN)
    for _ in range(20):
        world.now += 121
        world.exit()
        world.ring()
    assert world.state is State.STARTING


@pytest.mark.parametrize("code", [69, 78])
def test_permanent_exit_codes_are_not_retried(world, code):
    """A missing model or a bad config is FATAL after one start, with the child's own reason."""
    world.send(Event.SPAWN)
    world.exit(Exit(code, "", "no such model"))
    assert world.state is State.FATAL
    assert world.supervisor.last_exit.reason == "no such model"


def test_a_child_that_is_short_of_memory_is_started_for_as_long_as_it_takes(world):
    """Its exits never add up to FATAL; the pauses double up to the limit, and it becomes ready."""
    world.send(Event.SPAWN)
    pauses = []
    for _ in range(20):
        world.exit(Exit(71, "", "9 GB needed"))
        assert world.state is State.BACKOFF
        pauses.append(world.timer[0] - world.now)
        world.ring()
    assert pauses[:5] == [1, 2, 4, 8, 8]
    world.send(Event.READY)
    assert world.state is State.READY


def test_a_restart_clears_fatal(world):
    """Restart out of FATAL spawns at once and forgets the deaths."""
    world.send(Event.SPAWN)
    world.exit(Exit(78, "", "bad key"))
    world.send(Event.RESTART)
    assert world.state is State.STARTING
    world.exit()
    assert world.state is State.BACKOFF
    assert world.timer[0] - world.now == 1


def test_a_restart_of_a_running_child_stops_it_first(world):
    """Restart while READY terminates, waits for the exit, then spawns."""
    world.send(Event.SPAWN, Event.READY, Event.RESTART)
    assert world.state is State.STOPPING
    assert world.calls == ["spawn 7", "terminate"]
    world.exit(Exit(0, "", "exited with code 0"))
    assert world.state is State.STARTING
    assert world.calls[-1] == "spawn 8"


def test_a_stop_outlives_a_restart_under_way(world):
    """The later request wins: stop after restart stops, restart after stop spawns."""
    world.send(Event.SPAWN, Event.READY, Event.RESTART, Event.STOP)
    world.exit()
    assert world.state is State.STOPPED
    world.send(Event.SPAWN, Event.STOP, Event.RESTART)
    world.exit()
    assert world.state is State.STARTING


def test_a_child_that_ignores_the_stop_is_killed(world):
    """After stop_timeout_seconds the child is killed, and the last exit shows it."""
    world.send(Event.SPAWN, Event.READY, Event.STOP)
    world.ring()
    assert world.calls[-1] == "kill"
    world.exit(KILLED)
    assert world.state is State.STOPPED
    assert world.supervisor.last_exit.reason == "killed: did not stop within 10 s"


def test_a_start_that_takes_too_long_counts_as_a_death(world):
    """The start timeout aborts the child, names the cause, and backs off."""
    world.send(Event.SPAWN)
    world.ring()
    assert world.now == 1100
    assert world.calls[-1] == "abort"
    world.send(Event.READY)
    assert world.state is State.ABORTING
    world.exit(Exit(None, "SIGABRT", "ended by SIGABRT"))
    assert world.state is State.BACKOFF
    assert world.supervisor.last_exit.reason == "not ready within 100 s"
    assert world.supervisor.last_exit.signal == "SIGABRT"


def test_a_child_without_progress_is_aborted_and_starts_again(world):
    """It writes its stack, is killed if that takes too long, and the reason names the stall."""
    world.send(Event.SPAWN, Event.READY)
    world.stall()
    assert world.state is State.ABORTING
    assert world.calls[-1] == "abort"
    world.ring()
    assert world.now == 1005
    assert world.calls[-1] == "kill"
    world.exit(KILLED)
    assert world.state is State.BACKOFF
    assert world.supervisor.last_exit.reason == "no progress"
    world.ring()
    assert world.state is State.STARTING


@pytest.mark.parametrize(
    ("event", "state"), [(Event.STOP, State.STOPPED), (Event.RESTART, State.STARTING)]
)
def test_a_request_during_an_abort_wins(world, event, state):
    """A stop or restart kills the child that is being aborted at once, and decides what follows."""
    world.send(Event.SPAWN, Event.READY)
    world.stall()
    world.send(event)
    assert world.calls[-1] == "kill"
    world.exit(KILLED)
    assert world.state is state


def test_a_stop_during_backoff_rests(world):
    """Nothing is spawned after a stop that found no process."""
    world.send(Event.SPAWN)
    world.exit()
    world.send(Event.STOP)
    assert world.state is State.STOPPED
    assert world.timer is None


def test_an_event_without_a_handler_is_a_bug(world):
    """An illegal transition raises instead of being ignored."""
    with pytest.raises(AssertionError, match="ready in state stopped"):
        world.send(Event.READY)


class AnyOrder(RuleBasedStateMachine):
    """In any order of events the promises at the top of supervisor.py hold."""

    def __init__(self):
        super().__init__()
        self.world = World(
            SupervisorSettings(
                start_timeout_seconds=50,
                stop_timeout_seconds=10,
                backoff_initial_seconds=1,
                backoff_max_seconds=30,
                stable_seconds=60,
                crash_limit=3,
                crash_window_seconds=120,
            )
        )
        self.asked_to_rest = True

    @property
    def state(self):
        return self.world.state

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds):
        end = self.world.now + seconds
        while self.world.timer and self.world.timer[0] <= end:
            self.world.ring()
        self.world.now = max(self.world.now, end)

    @precondition(lambda self: self.state is State.STOPPED)
    @rule()
    def spawn(self):
        self.asked_to_rest = False
        self.world.send(Event.SPAWN)

    @rule()
    def restart(self):
        self.asked_to_rest = False
        self.world.send(Event.RESTART)
        assert self.state in (State.STARTING, State.STOPPING)

    @rule()
    def stop(self):
        self.asked_to_rest = True
        self.world.send(Event.STOP)
        assert self.state in (State.STOPPED, State.STOPPING)

    @precondition(lambda self: self.state in (State.STARTING, State.STOPPING, State.ABORTING))
    @rule()
    def ready(self):
        self.world.send(Event.READY)

    @precondition(lambda self: self.state is State.READY)
    @rule()
    def stall(self):
        self.world.stall()
        assert self.state is State.ABORTING

    @precondition(lambda self: self.world.alive)
    @rule(code=st.sampled_from([0, 1, 69, 71, 75, 78]))
    def exit(self, code):
        was_wanted = self.state is State.STOPPING
        self.world.exit(Exit(code, "", f"code {code}"))
        if code in (69, 78) and not was_wanted:
            assert self.state is State.FATAL

    @precondition(lambda self: self.world.alive)
    @rule()
    def killed(self):
        self.world.exit(KILLED)

    @invariant()
    def a_process_lives_exactly_in_the_states_that_have_one(self):
        running = self.state not in (State.STOPPED, State.BACKOFF, State.FATAL)
        assert self.world.alive == running

    @invariant()
    def timers_belong_to_their_states(self):
        timer = self.world.timer[1] if self.world.timer else None
        allowed = {
            State.STARTING: {Event.START_TIMEOUT},
            State.STOPPING: {Event.STOP_TIMEOUT, None},
            State.ABORTING: {Event.ABORT_TIMEOUT, None},
            State.BACKOFF: {Event.BACKOFF_ELAPSED},
            State.FATAL: {Event.BACKOFF_ELAPSED, None},
        }
        assert timer in allowed.get(self.state, {None})

    @invariant()
    def a_stopped_child_stays_stopped(self):
        if self.asked_to_rest:
            assert self.state in (State.STOPPED, State.STOPPING)

    @invariant()
    def times_fit_the_state(self):
        assert (self.world.supervisor.ready_at is not None) == (self.state is State.READY)
        if self.state is not State.FATAL:
            assert (self.world.supervisor.retry_at is not None) == (self.state is State.BACKOFF)

    @invariant()
    def a_crash_loop_always_has_a_next_try(self):
        supervisor = self.world.supervisor
        permanent = supervisor.last_exit and supervisor.last_exit.code in (69, 78)
        if self.state is State.FATAL and not permanent:
            assert self.world.timer == (supervisor.retry_at, Event.BACKOFF_ELAPSED)


AnyOrder.TestCase.settings = hypothesis_settings(max_examples=100, deadline=None)
TestAnyOrder = AnyOrder.TestCase
