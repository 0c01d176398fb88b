"""A report in a real Chromium: it is drawn, asks for nothing, and runs nothing that a name brings along."""

from __future__ import annotations

import re
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import HOSTILE, overview

from modelyard.cli.page import page

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def chromium(component: Callable[[str], str]) -> str:
    return component("chromium")


def opened(chromium: str, path: Path, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """The page, opened without a network."""
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", "--log-level=0", "--window-size=1100,1600", "--host-resolver-rules=MAP * ~NOTFOUND", *flags, path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def pixels(path: Path) -> list[bytes]:
    """The lines of a PNG as they are stored, whatever their filter: two that differ are two that look different."""
    data, at, found = path.read_bytes(), 8, b""
    assert data.startswith(b"\x89PNG")
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack(">IIBB", data[at + 8 : at + 18])
        if kind == b"IDAT":
            found += data[at + 8 : at + 8 + size]
        at += 12 + size
    row = 1 + width * (4 if colour == 6 else 3)
    whole = zlib.decompress(found)
    assert len(whole) == row * height
    return [whole[start : start + row] for start in range(0, len(whole), row)]


def consoles(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r'CONSOLE[^"]*"(.*?)"', done.stderr)


def test_it_is_drawn_and_nothing_of_it_runs(chromium: str, tmp_path: Path) -> None:
    path, shot = tmp_path / "report.html", tmp_path / "shot.png"
    path.write_bytes(page(overview(*HOSTILE), at=1_800_086_400.0))
    done = opened(chromium, path, tmp_path, f"--screenshot={shot}")
    assert shot.exists(), done.stderr[-2000:]
    assert len(set(pixels(shot))) > 300, "text and plots, from top to bottom"
    assert consoles(done) == []
    dumped = opened(chromium, path, tmp_path, "--dump-dom").stdout
    assert "<title>line: monitoring report</title>" in dumped and dumped.count("<svg") == 10


def test_the_check_can_fail(chromium: str, tmp_path: Path) -> None:
    """The negative control: a page that runs what a name brings along, and complains, is found out; an empty one is empty."""
    path, shot = tmp_path / "wrong.html", tmp_path / "shot.png"
    path.write_text(f"<!doctype html><title>line</title><body>{HOSTILE[0]}<script>console.error('broken')</script>")
    done = opened(chromium, path, tmp_path, f"--screenshot={shot}")
    assert consoles(done) == ["broken"] and len(set(pixels(shot))) < 10
    assert "<title>caught</title>" in opened(chromium, path, tmp_path, "--dump-dom").stdout
