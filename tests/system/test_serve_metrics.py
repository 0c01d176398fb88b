"""A real Prometheus scrapes a real server: what it stores is what was asked, whichever worker answered, and whatever dialect is spoken."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import Running, home_with, line_row, running

pytestmark = pytest.mark.system

ASKED, REFUSED = 30, 4
QUERIES = (
    'modelyard_requests_total{model_name="line",model_version="1"}',
    '{__name__=":tensorflow:serving:request_count",model_name="line",status="OK"}',
    '{__name__=":tensorflow:serving:request_latency_count",model_name="line",API="predict"}',
)


def test_prometheus_reads_our_names_and_a_dialect_on_its_own_path(tmp_path: Path, component: Callable[[str], str]) -> None:
    with running(home_with(tmp_path / "h", "line"), workers=2, settings={"metrics_dialect": "tfserving"}) as server:
        for _ in range(ASKED):
            assert server.infer("line", line_row()).status == 200
        for _ in range(REFUSED):
            assert server.infer("line", line_row(a="x")).status == 400
        with scraping(component("prometheus"), tmp_path / "prometheus", server, path="/monitoring/prometheus/metrics") as ask:
            until = time.monotonic() + 60
            while not (found := ask("modelyard_requests_total")) and time.monotonic() < until:
                time.sleep(0.2)
            assert found, (tmp_path / "prometheus" / "log").read_text()
            for query in QUERIES:
                (sample,) = ask(query)
                assert float(sample["value"][1]) == ASKED, query
            (refused,) = ask('modelyard_errors_total{code="schema_mismatch"}')
            assert float(refused["value"][1]) == REFUSED
            (p50,) = ask("histogram_quantile(0.5, modelyard_request_duration_seconds_bucket)")
            assert 0 < float(p50["value"][1]) < 10


def test_the_other_path_is_there_only_in_its_dialect(tmp_path: Path) -> None:
    with running(home_with(tmp_path / "h", "line"), settings={"metrics_dialect": "triton"}) as server:
        assert server.ask("GET", "/monitoring/prometheus/metrics").status == 404
        assert b"nv_inference_request_success" in server.ask("GET", "/metrics").body


@contextmanager
def scraping(program: str, folder: Path, server: Running, *, path: str) -> Iterator[Callable[[str], list[Any]]]:
    """A Prometheus that scrapes `server` every second; gives a function that asks it a query."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scrape = f"scrape_configs: [{{job_name: m, metrics_path: {path}, static_configs: [{{targets: ['127.0.0.1:{server.port}']}}]}}]"
    (folder / "prometheus.yml").write_text(f"global: {{scrape_interval: 1s}}\n{scrape}\n")
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=5))

    def ask(query: str) -> list[Any]:
        try:
            answer = client.get("/api/v1/query", params={"query": query})
        except httpx.TransportError:
            return []
        return list(answer.json()["data"]["result"]) if answer.status_code == 200 else []

    try:
        yield ask
    finally:
        client.close()
        process.kill()
        process.wait()
