"""An emulator of Google Cloud Storage for tests, on a free port of loopback, in a process and a Python of its own: it speaks the JSON API that gcsfs
asks. What it cannot show is Google's own credentials and limits.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]


class Gcs:
    """A server with the empty bucket `models`. Who uses it needs `environment`: where it is, and our packages behind those of its Python."""

    def __init__(self, python: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = int(found.getsockname()[1])
        self.python = python
        self.endpoint = f"http://127.0.0.1:{port}"
        packages = f"{ROOT / 'src'}:{sysconfig.get_paths()['purelib']}"
        self.environment = {"STORAGE_EMULATOR_HOST": self.endpoint, "PYTHONPATH": packages}
        started = ["start", "--host", "127.0.0.1", "--port", str(port), "--in-memory", "--quiet", "--default-bucket", "models"]
        command = [str(python), "-m", "gcp_storage_emulator", *started]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]})
        for _ in range(1500):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.endpoint}/storage/v1/b/models", timeout=5)
                return
            assert self.process.poll() is None, "the emulator ended as it began"
            time.sleep(0.02)
        raise AssertionError("the emulator does not answer")

    def write(self, name: str, data: bytes) -> None:
        """Put an object into the bucket."""
        answer = httpx.post(f"{self.endpoint}/upload/storage/v1/b/models/o", params={"uploadType": "media", "name": name}, content=data, timeout=20)
        assert answer.status_code == 200, answer.text


@contextlib.contextmanager
def running(python: Path) -> Iterator[Gcs]:
    """A server while the block runs."""
    server = Gcs(python)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait(60)
