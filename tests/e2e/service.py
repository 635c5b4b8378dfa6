"""The service under test: `anyclauded` on the demo model, in a namespace, with its own home."""

from typing import Final

from tests.e2e.namespace import Namespace
from tests.integration import service

_LOG_TAIL_CHARACTERS: Final = 4000


class Service(service.Service):
    """A started daemon; its address is one inside the namespace."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(within=namespace.command)
        self.namespace = namespace

    def log_tail(self) -> str:
        """The end of the daemon's output, to show with a failure."""
        return self.output[-_LOG_TAIL_CHARACTERS:]
