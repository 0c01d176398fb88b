"""The lines of the log: one shape, two forms, and nothing that can break a line or the process."""

from __future__ import annotations

import io
import json
import os
import re
import sys

import pytest

from modelyard.serve.log import Log

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def test_a_line_is_one_json_object_in_the_documented_shape(capsys: pytest.CaptureFixture[str]) -> None:
    Log("json", slot=3).error("error", status=500, code="internal", field=None)
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert re.fullmatch(TIME, said.pop("time"))
    assert said == {"level": "error", "event": "error", "process": "worker", "slot": 3, "pid": os.getpid(), "status": 500, "code": "internal"}


def test_text_is_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    Log("text", process="supervisor").warning("worker_ended", worker=1, exit=-9, message="it was killed")
    assert re.fullmatch(TIME + r" warning supervisor: worker_ended worker=1 exit=-9 \(it was killed\)\n", capsys.readouterr().err)


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("text", ["a\nb", "a\r\x1b[31m", 'a" b=c', "a\u2028b", ""])
def test_no_value_breaks_a_line(form: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Log(form).info("event", value=text, message=text)
    said = capsys.readouterr().err
    assert (
        said.endswith("\n") and len(said.splitlines()) == 1 and "\x1b" not in said and " b=c" not in said.replace(json.dumps(text), "").split("(")[0]
    )


def test_auto_is_json_unless_a_person_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, is_json in ((Terminal(), False), (io.StringIO(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        Log().info("started")
        assert stream.getvalue().startswith("{") is is_json


def test_a_log_that_nobody_reads_any_more_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    closed = io.StringIO()
    closed.close()
    for stream in (Gone(), closed):
        monkeypatch.setattr(sys, "stderr", stream)
        Log("json").info("started")
