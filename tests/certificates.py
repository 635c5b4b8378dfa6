"""Certificates for servers on this machine."""

import shutil
import subprocess
from pathlib import Path

from tests.requirements import unavailable


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Makes a self-signed certificate for 127.0.0.1 and upstream.test, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        unavailable("openssl makes the certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(cert), "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1,IP:0.0.0.0,DNS:upstream.test"),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key
