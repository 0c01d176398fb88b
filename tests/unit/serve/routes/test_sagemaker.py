from __future__ import annotations

import io
from collections.abc import Iterator

import pyarrow as pa
import pytest
from edging import Asking, asking

from modelyard.serve.routes import sagemaker
from serving import Home, home_with


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return home_with(tmp_path_factory.mktemp("home") / "h", "line", "grid")


@pytest.fixture(scope="module")
def several(home: Home) -> Iterator[Asking]:
    yield from asking(home)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    yield from asking(home_with(tmp_path_factory.mktemp("home") / "h", "grid"))


BODY = {"instances": [[1.0, 2.0, 3.0, 4.0], [9.0, 9.0, 9.0, 9.0]]}


def test_ping_takes_get_and_post_and_has_no_body(single: Asking) -> None:
    for method in ("GET", "POST"):
        answer = single.ask(method, "/ping")
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("application/jsonlines;q=0.5, text/html", "application/jsonlines"),
        ("application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
    ],
)
def test_accept_is_honoured(single: Asking, accept: str, media: str) -> None:
    answer = single.ask("POST", "/invocations", BODY, {"accept": accept} if accept else {})
    assert (answer.status, answer.headers["content-type"]) == (200, media)
    if media == "application/json":
        assert answer.json() == {"predictions": [0, 1]}
    elif "arrow" in media:
        assert pa.ipc.open_stream(answer.body).read_all()["label"].to_pylist() == [0, 1]
    else:
        assert [line.split(b",")[0] for line in answer.body.splitlines()][-1] in {b"1", b'{"label":1'}


def test_any_content_type_that_holds_rows(single: Asking) -> None:
    sink = io.BytesIO()
    table = pa.table({f"c{at}": [1.0, 9.0] for at in range(4)})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    bodies = {
        "text/csv": b"p,q,r,s\n1,2,3,4\n9,9,9,9\n",
        "application/jsonlines": b"[1,2,3,4]\n[9,9,9,9]\n",
        "application/json": b"[[1,2,3,4],[9,9,9,9]]",
    }
    for media, body in bodies.items():
        assert single.ask("POST", "/invocations", body, {"content-type": media}).json() == {"predictions": [0, 1]}, media
    answer = single.ask(
        "POST", "/invocations", sink.getvalue(), {"content-type": "application/vnd.apache.arrow.stream", "accept": "application/json"}
    )
    assert answer.json() == {"predictions": [0, 1]}


def test_what_is_not_read_or_written_is_refused(single: Asking) -> None:
    answer = single.ask("POST", "/invocations", b"x", {"content-type": "image/png"})
    assert (answer.status, answer.headers["content-type"]) == (415, "text/plain; charset=utf-8")
    assert single.ask("POST", "/invocations", b"{}", {"content-type": "application/json; charset=latin-1"}).status == 415
    assert single.ask("POST", "/invocations", BODY, {"accept": "image/png"}).status == 415


def test_execution_parameters(single: Asking) -> None:
    told = single.ask("GET", "/execution-parameters").json()
    assert set(told) == {"MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB"}
    assert told["MaxPayloadInMB"] == 4


def test_several_models_are_listed_described_and_asked(several: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = several.ask("GET", "/models").json()
    assert [each["modelName"] for each in listed["models"]] == ["grid", "line"]
    assert "nextPageToken" not in listed
    assert several.ask("GET", "/models/grid").json() == listed["models"][0]
    assert listed["models"][0]["modelUrl"].startswith("sha256:")
    assert several.ask("GET", "/models/nothing").status == 404
    headers = {"x-amzn-sagemaker-target-model": "grid.tar.gz", "x-amzn-sagemaker-custom-attributes": "c000b4f9", "accept": "text/csv"}
    assert several.ask("POST", "/models/grid/invoke", BODY, headers).body.startswith(b"label,probability_0,probability_1\n0,")
    refused = several.ask("POST", "/models/nothing/invoke", BODY)
    assert refused.status == 404
    assert several.ask("POST", "/models/grid/invoke", b"{}", {"content-type": "application/json"}).json()["error_code"] == "BAD_REQUEST"
    monkeypatch.setattr(sagemaker, "PAGE", 1)
    first = several.ask("GET", "/models").json()
    second = several.ask("GET", f"/models?next_page_token={first['nextPageToken']}").json()
    assert [each["modelName"] for each in first["models"] + second["models"]] == ["grid", "line"]
    assert "nextPageToken" not in second


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"model_name": "\xff", "url": "/x"}', b'{"x": ' + b"[" * 100_000, b"\xff", b"null", b'{"model_name": 1}']
)
def test_a_load_that_is_asked_wrongly(several: Asking, body: bytes) -> None:
    answer = several.ask("POST", "/models", body)
    assert (answer.status, answer.json()["field"]) == (400, "body")
