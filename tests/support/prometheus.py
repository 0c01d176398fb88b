"""A real Prometheus of the distribution for tests, and what its expressions name."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from receivers import wait_for
from world import free_ports

from modelyard.metrics import METRICS


def named(expression: str) -> set[str]:
    """The metrics of ours that an expression names, whatever of a histogram's."""
    return {re.sub("_(bucket|sum|count)$", "", name) if name not in METRICS else name for name in re.findall(r"\bmodelyard_[a-z_]+", expression)}


class Prometheus:
    """A server that scrapes `targets` ({job: (address, path, key)}) every second and evaluates `rules`, a file."""

    def __init__(self, binary: str, folder: Path, *, targets: dict[str, tuple[str, str, str]], rules: Path, managers: tuple[str, ...] = ()) -> None:
        jobs: list[dict[str, Any]] = []
        for name, (address, path, key) in targets.items():
            job: dict[str, Any] = {"job_name": name, "metrics_path": path, "static_configs": [{"targets": [address]}]}
            if key:
                job["authorization"] = {"credentials": key}
            jobs.append(job)
        config = {
            "global": {"scrape_interval": "3s", "scrape_timeout": "3s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": jobs,
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(managers)}]}]} if managers else {},
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self.trouble: list[str] = []
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._log = (folder / "prometheus.log").open("wb")
        arguments = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
        self._process = subprocess.Popen([binary, *arguments], stdout=self._log, stderr=subprocess.STDOUT)
        wait_for(self._is_ready, 60)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    @property
    def is_fed(self) -> bool:
        """Whether every target has answered its last question; `trouble` says what others said."""
        targets = self.ask("targets")["activeTargets"]
        self.trouble = [each["lastError"] for each in targets if each["health"] != "up"]
        return bool(targets) and not self.trouble

    def firing(self) -> set[str]:
        """The names of alerts that fire."""
        return {each["labels"]["alertname"] for each in self.ask("alerts")["alerts"] if each["state"] == "firing"}

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
