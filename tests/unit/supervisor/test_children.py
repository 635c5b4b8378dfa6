"""What a child inherits of the daemon's environment."""

from anyclaude.runtime.paths import find_paths
from anyclaude.runtime.settings import Settings
from anyclaude.supervisor.children import ChildSpec, Role, environment

SHELL = {
    "PATH": "/bin",
    "LMSTUDIO_API_KEY": "one",
    "MY_KEY": "two",
    "AWS_SECRET_ACCESS_KEY": "three",
    "HTTPS_PROXY": "http://proxy",
    "no_proxy": "localhost",
    "SSL_CERT_FILE": "/ca.pem",
    "LD_PRELOAD": "libopenblas.so.0",
    "OPENBLAS_NUM_THREADS": "1",
}


def inherited(tmp_path, **spec):
    paths = find_paths({"ANYCLAUDE_HOME": str(tmp_path)})
    tables = {"mine": {"base_url": "http://localhost:1", "api_key_env": "MY_KEY"}}
    settings = Settings.model_validate({"upstreams": tables})
    child = ChildSpec("it", Role.WORKER, (), **spec)
    return set(environment(child, SHELL, paths, settings.upstreams)) & set(SHELL)


def test_keys_reach_the_child_that_asks_servers(tmp_path):
    """The relay gets the keys that the settings name and the proxies, and no other secret."""
    assert inherited(tmp_path, uses_network=True) == {*SHELL} - {"AWS_SECRET_ACCESS_KEY"}


def test_keys_reach_no_other_child(tmp_path):
    """A worker that connects to no server knows no key and no proxy, but the BLAS that it loads."""
    assert inherited(tmp_path) == {"PATH", "LD_PRELOAD", "OPENBLAS_NUM_THREADS"}
