"""A real S3-compatible server for tests: moto's, on a free port of loopback, in a process of its own; it can be stopped and started as in a fault."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
_SERVE = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"


class S3:
    """A server of its own. `url()` is a new empty bucket with a prefix; who uses it needs `environment`, as every AWS client does."""

    def __init__(self) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port: int = found.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.environment = {**KEYS, "AWS_ENDPOINT_URL": self.endpoint}
        self.start()

    def start(self) -> None:
        """Run it, until it answers. Nothing is kept from before."""
        command = [sys.executable, "-c", _SERVE, str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **KEYS})
        for _ in range(1500):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.endpoint}/moto-api/", timeout=5)
                return
            assert self._process.poll() is None, "moto ended as it began"
            time.sleep(0.02)
        raise AssertionError("moto does not answer")

    def stop(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait(60)

    def url(self) -> str:
        """A place in a new bucket."""
        bucket = f"b{secrets.token_hex(6)}"
        assert httpx.put(f"{self.endpoint}/{bucket}", headers={"Authorization": "AWS testing:x"}).status_code == 200
        return f"s3://{bucket}/home"


@contextlib.contextmanager
def running() -> Iterator[S3]:
    """A server while the block runs."""
    server = S3()
    try:
        yield server
    finally:
        server.stop()
