"""The daemon's children as data, and the environment that they inherit."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from anyclaude.runtime.paths import Paths, make_private_folder
from anyclaude.runtime.upstreams import UpstreamSettings


class Role(Enum):
    # Serves HTTP on the daemon's socket, and anyclaude.frontend.v1.
    FRONTEND = auto()
    # Serves anyclaude.worker.v1.
    WORKER = auto()
    # Runs a server of `[upstreams.NAME]`, which the relay sends requests to.
    SERVER = auto()


@dataclass(frozen=True)
class ChildSpec:
    name: str
    role: Role
    command: tuple[str, ...]
    # It connects to other servers: it needs the variables that hold their keys, and the proxies.
    uses_network: bool = False


# In the order in which they are stopped: the front end drains while its workers still answer.
DEFAULT_CHILDREN: Final = (
    ChildSpec("frontend", Role.FRONTEND, (sys.executable, "-m", "anyclaude.proxy")),
    ChildSpec("mlx", Role.WORKER, (sys.executable, "-m", "anyclaude.mlx")),
    ChildSpec("relay", Role.WORKER, (sys.executable, "-m", "anyclaude.relay"), uses_network=True),
)

# What a child may know of the daemon's environment. Everything else stays out: keys, proxies and
# trusted certificates are for the child that connects to other servers.
_KEPT: Final = frozenset(
    {
        "PATH",
        "HOME",
        # Where Claude Code has the transcripts whose titles the status page shows.
        "CLAUDE_CONFIG_DIR",
        "USER",
        "LANG",
        "TMPDIR",
        "ANYCLAUDE_HOME",
        # Where local models are stored.
        "HF_HOME",
        "HF_HUB_CACHE",
        "XDG_CACHE_HOME",
        # How MLX finds its device and, on Linux, its libraries.
        "LD_LIBRARY_PATH",
        # Another BLAS than that of MLX's wheel for Linux, and its threads.
        "LD_PRELOAD",
        "OPENBLAS_NUM_THREADS",
        "CUDA_HOME",
        "CUDA_PATH",
        "CUDA_VISIBLE_DEVICES",
    }
)
_NETWORK: Final = frozenset(
    {
        *("SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    }
)
_KEPT_PREFIXES: Final = ("LC_", "GRPC_")
_SET: Final = {
    "PYTHONUNBUFFERED": "1",
    # Prints a stack after a native crash or an aborted start, from the first import on.
    "PYTHONFAULTHANDLER": "1",
    "HF_HUB_OFFLINE": "1",
}


def server_specs(upstreams: Mapping[str, UpstreamSettings]) -> list[ChildSpec]:
    """The servers that the service runs itself, named like their modes."""
    command = (sys.executable, "-m", "anyclaude.supervisor.server_process")
    return [
        ChildSpec(name, Role.SERVER, command, uses_network=True)
        for name, table in upstreams.items()
        if table.command and table.base_url
    ]


def environment(
    spec: ChildSpec,
    environ: Mapping[str, str],
    paths: Paths,
    upstreams: Mapping[str, UpstreamSettings],
) -> dict[str, str]:
    """The whole environment of a child; makes the folders that it names."""
    names = set(_KEPT)
    if spec.uses_network:
        # A server that the service runs gets its own key only.
        tables = [upstreams[spec.name]] if spec.role is Role.SERVER else upstreams.values()
        names |= _NETWORK | {upstream.api_key_env for upstream in tables}
    kept = {
        name: value
        for name, value in environ.items()
        if name in names or name.startswith(_KEPT_PREFIXES)
    }
    if spec.role is Role.WORKER:
        make_private_folder(paths.worker_tmp)
        kept["TMPDIR"] = str(paths.worker_tmp)
    return kept | _SET
