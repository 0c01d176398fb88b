"""runtime.originals.torch, as far as it goes without PyTorch; `tests/system/test_torch.py` has it."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from modelyard.runtime.originals.torch import _quietly, _reason, _without_places
from serving import graph


def test_what_tells_of_the_machine_is_taken_out_and_the_rest_stays() -> None:
    import onnx

    plain = onnx.load_model_from_string(graph("line")[0])
    told = onnx.load_model_from_string(graph("line")[0])
    for holder in (told, told.graph, *told.graph.node, *told.graph.input):
        holder.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/somebody/net.py")
        holder.doc_string = "somewhere"
    told.producer_version = "9.9"
    _without_places(told)
    assert b"somebody" not in told.SerializeToString()
    assert [node.op_type for node in told.graph.node] == [node.op_type for node in plain.graph.node]
    assert told.graph.initializer == plain.graph.initializer


def test_the_reason_is_the_one_at_the_bottom_in_one_plain_line() -> None:
    error = RuntimeError("Failed.\n\nNext steps")
    error.__cause__ = ValueError("\x1b[96mdata-dependent\x1b[0m expression.\nmore")
    assert _reason(error) == "data-dependent expression"


def test_the_exporter_is_quiet_and_others_are_heard_again(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with _quietly():
        print("a graph of several screens")
        print("more", file=sys.stderr)
        logging.getLogger("torch").error("noise")
        warnings.warn("noise", stacklevel=1)
    assert capsys.readouterr() == ("", "") and not caplog.records
    logging.getLogger("torch").error("heard")
    assert [record.message for record in caplog.records] == ["heard"]
