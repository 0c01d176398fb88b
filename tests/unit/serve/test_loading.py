from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest

from modelyard.errors import DigestMismatch, Rejected, UntrustedSigner
from modelyard.serve import loading
from modelyard.serve.loading import FREED, Tide, gather_in_large_pages, give_back_memory, keep_freed_memory, load, resident_bytes, verdict_of
from modelyard.types import Placement
from serving import Home, golden


def test_a_bundle_is_opened_proved_and_timed(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    digest, _ = home.add("line")
    loaded = load(digest, home.placements[digest], home.folder / "keys")
    assert loaded.verdict.outcome == "pass"
    assert loaded.seconds_per_row > 0
    assert loaded.can_batch
    inputs = golden("line")
    wanted = inputs["a"] + 10 * inputs["b"] + 100 * np.nan_to_num(inputs["c"])
    np.testing.assert_allclose(loaded.runtime.predict(inputs)["prediction"], wanted[:, 0], rtol=1e-5)
    loaded.runtime.close()


def test_wrong_golden_answers_are_rejected_with_their_verdict(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    digest, _ = home.add("line", wrong_answers=True)
    with pytest.raises(Rejected) as caught:
        load(digest, home.placements[digest], home.folder / "keys")
    assert verdict_of(caught.value).rule == "golden-replay"
    assert verdict_of(caught.value).outcome == "fail"


def test_another_bundle_than_the_plan_names_is_rejected(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    first, _ = home.add("line")
    second, _ = home.add("shop")
    with pytest.raises(Rejected, match="another"):
        load(first, home.placements[second], home.folder / "keys")


def test_a_signer_that_the_home_does_not_know_and_a_missing_blob_are_refused(tmp_path: Path) -> None:
    home, elsewhere = Home(tmp_path / "h"), Home(tmp_path / "e")
    home.add("shop")
    digest, _ = elsewhere.add("line")
    with pytest.raises(UntrustedSigner) as caught:
        load(digest, elsewhere.placements[digest], home.folder / "keys")
    assert verdict_of(caught.value).rule == "untrusted_signer"
    with pytest.raises(DigestMismatch):
        load(digest, Placement(blobs=str(tmp_path), index=elsewhere.placements[digest].index), elsewhere.folder / "keys")


def test_memory_can_be_asked_for_and_given_back() -> None:
    assert resident_bytes() > 1 << 20
    give_back_memory()


def test_a_tide_is_given_back_until_it_ebbs_or_proves_to_be_in_use() -> None:
    tide, mb = Tide(), 1 << 20
    assert not tide.is_due(100 * mb)  # what there is at the beginning is in use
    assert not tide.is_due(110 * mb)
    assert tide.is_due(130 * mb)
    assert not tide.is_due(105 * mb)  # it went
    assert [tide.is_due(140 * mb) for _ in range(Tide.TRIES + 2)] == [True] * Tide.TRIES + [False, False]  # it stays: another model, say
    assert tide.is_due(160 * mb)


def test_what_is_kept_of_freed_memory_is_bounded_unless_the_environment_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(loading.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=lambda *option: told.append(option)))
    monkeypatch.setattr(loading.sys, "platform", "linux")
    for name in FREED:
        monkeypatch.delenv(name, raising=False)
    keep_freed_memory()
    assert told == [(-3, 8 << 20), (-1, 16 << 20)]
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    keep_freed_memory()
    assert told[2:] == [(-3, 8 << 20)]


def test_what_a_thread_has_loaded_is_gathered_where_the_system_lets_who_asks(tmp_path: Path, lacks: Callable[[str], NoReturn]) -> None:
    allowed = tmp_path / "enabled"
    script = """
import ctypes, mmap, sys, threading
from pathlib import Path
from modelyard.serve.loading import gather_in_large_pages

def large():
    return sum(line.startswith("AnonHugePages:") and int(line.split()[1]) > 0 for line in Path("/proc/self/smaps").read_text().splitlines())

def marked():
    return sum(line.startswith("VmFlags:") and " hg" in line for line in Path("/proc/self/smaps").read_text().splitlines())

def load():
    held = [bytes(1000) for _ in range(10_000)]
    before = large()
    gather_in_large_pages(allowed=Path(sys.argv[1]))
    print(before, large(), marked(), held[-1] == bytes(1000))

thread = threading.Thread(target=load)
thread.start()
thread.join()
place = mmap.mmap(-1, 4 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
place.write(bytes(4 << 20))
start = ctypes.addressof(ctypes.c_char.from_buffer(place))
print(ctypes.CDLL(None).madvise(ctypes.c_void_p(-(-start >> 21) << 21), ctypes.c_size_t(2 << 20), 25) == 0)
"""
    for text in ("always madvise [never]", "always [madvise] never"):
        allowed.write_text(text)
        said = subprocess.run([sys.executable, "-c", script, str(allowed)], capture_output=True, text=True, check=True).stdout
        before, after, marked, is_whole, has_pages = said.split()
        assert (marked, is_whole) == ("0", "True"), "what is marked would come back by itself after it was given back"
        if "[never]" in text:
            assert after == before
        elif has_pages == "True":
            assert int(after) > 0
        else:
            lacks("pages of 2 MiB that the system has to give")
    allowed.unlink()
    gather_in_large_pages(allowed=allowed)  # a system that does not say
