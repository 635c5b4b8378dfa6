"""All children of the daemon, started together and stopped in order."""

import asyncio
import signal
from collections.abc import Iterator, Sequence

from anyclaude.supervisor.child import SupervisedChild, World
from anyclaude.supervisor.children import ChildSpec, Role
from anyclaude.supervisor.supervisor import Event


class UnknownChildError(Exception):
    """No child has this name; the message names those that exist."""


class StoppingError(Exception):
    """The daemon is on its way out and starts nothing any more."""


class Crew:
    """The children by name, in the order of their list."""

    def __init__(self, specs: Sequence[ChildSpec], world: World) -> None:
        self._children = {spec.name: SupervisedChild(spec, world) for spec in specs}
        self._stopping = False

    def __iter__(self) -> Iterator[SupervisedChild]:
        return iter(self._children.values())

    def __getitem__(self, name: str) -> SupervisedChild:
        """
        Raises:
            UnknownChildError
        """
        try:
            return self._children[name]
        except KeyError:
            known = ", ".join(self._children)
            raise UnknownChildError(f'There is no worker "{name}". Workers: {known}.') from None

    def start(self) -> None:
        """Starts all but those that have made room for the mode to start in."""
        for child in self:
            if child.room is None:
                child.supervisor.handle(Event.SPAWN)

    def restart(self, name: str) -> SupervisedChild:
        """Stops the child if it runs and starts it again; forgets its deaths.

        Raises:
            UnknownChildError
            StoppingError
        """
        child = self[name]
        if self._stopping:
            raise StoppingError("anyclauded is stopping; no worker starts any more.")
        child.make_room(None)
        child.supervisor.handle(Event.RESTART)
        return child

    async def stop(self) -> None:
        """Front end first: it drains while its workers still answer."""
        self._stopping = True
        for child in self:
            child.begin_last_run()
        for role in Role:
            await asyncio.gather(*(child.stop() for child in self if child.spec.role is role))

    def kill(self) -> None:
        """Ends every process now; `stop` then returns soon."""
        for child in self:
            child.signal(signal.SIGKILL)
