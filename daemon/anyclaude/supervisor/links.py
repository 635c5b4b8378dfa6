"""The gRPC channel to a child's current process.

A channel belongs to one generation: a new process serves on a new socket, so an old channel can
never reach it and is closed.
"""

import grpc.aio

from anyclaude.runtime.channels import aio_channel
from anyclaude.supervisor.child import SupervisedChild
from anyclaude.supervisor.supervisor import State


class NotReadyError(Exception):
    """The child serves nothing at the moment."""


class Link:
    """Hands out the channel that reaches `child` now."""

    def __init__(self, child: SupervisedChild) -> None:
        self.child = child
        self._generation = 0
        self._channel: grpc.aio.Channel | None = None

    async def channel(self) -> grpc.aio.Channel:
        """
        Raises:
            NotReadyError: the child is not READY.
        """
        if self.child.state is not State.READY:
            raise NotReadyError(self.child.name)
        generation = self.child.supervisor.generation
        old = self._channel
        if old is not None and self._generation == generation:
            return old
        # Replaced before the first await, so that callers side by side share the new one.
        self._channel = channel = aio_channel(self.child.socket_path)
        self._generation = generation
        if old is not None:
            await old.close()
        return channel

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()
