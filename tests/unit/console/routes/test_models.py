"""The registry over HTTP, against a real home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from api import Api

from modelyard import config
from modelyard.console import uploads
from modelyard.control.plane import ControlPlane


@pytest.fixture
def api() -> Api:
    return Api(ControlPlane(config.load()))


def test_models_versions_and_what_a_version_holds(api: Api) -> None:
    digest, _ = api.home.add("line")
    api.home.add("line", offset=1.0)
    assert [(model["name"], model["versions"]) for model in api.told("GET", "/models")] == [("line", [1, 2])]
    assert [version["version"] for version in api.told("GET", "/models/line/versions")] == [1, 2]
    for said in ("1", digest):
        told = api.told("GET", f"/models/line/versions/{said}")
        assert (told["digest"], told["version"], told["schema"]["task"]) == (digest, 1, "regression")
    assert api.ask("GET", "/models/line/versions/3").status_code == 404
    assert api.ask("GET", "/models/line/versions/champion").status_code == 404
    assert api.ask("GET", "/models/none/versions").status_code == 404


def test_a_version_is_verified_here(api: Api) -> None:
    api.home.add("line")
    api.home.add("line", offset=1.0, wrong_answers=True)
    assert api.told("POST", "/models/line/versions/1/verify")["is_fit"] is True
    found = api.told("POST", "/models/line/versions/2/verify")
    assert found["is_fit"] is False and any(verdict["outcome"] == "fail" for verdict in found["verdicts"])


def test_an_alias_is_set_and_removed_and_keeps_its_version(api: Api) -> None:
    api.home.add("line")
    assert api.told("PUT", "/models/line/aliases/champion", json={"version": 1}) == {"name": "line", "alias": "champion", "version": 1}
    assert api.told("GET", "/models/line/versions/champion")["aliases"] == ["champion"]
    assert api.ask("DELETE", "/models/line/versions/1").status_code == 409
    assert api.told("DELETE", "/models/line/aliases/champion")["version"] is None
    assert api.told("DELETE", "/models/line/versions/1") == {"name": "line", "version": 1}
    assert api.ask("DELETE", "/models/line/versions/1").status_code == 404
    assert api.ask("DELETE", "/models/line/versions/champion").status_code == 400
    assert set(api.told("POST", "/gc")) == {"blobs", "size_bytes"}


def test_what_is_exported_can_be_imported_again(api: Api) -> None:
    digest, _ = api.home.add("line")
    answer = api.ask("GET", "/models/line/versions/1/export")
    assert answer.headers["content-type"] == "application/x-tar" and int(answer.headers["content-length"]) == len(answer.content)
    sent = {"content": answer.content, "headers": {"content-type": "application/x-tar"}}
    again = api.ask("POST", "/bundles", **sent)
    assert (again.status_code, again.json()["version"], again.json()["digest"]) == (201, 1, digest)
    assert api.told("POST", "/bundles?name=other", **sent)["name"] == "other"
    third = api.told("POST", "/models/third/versions", **sent)
    assert (third["name"], third["version"], third["digest"]) == ("third", 1, digest)
    assert os.listdir(api.plane.settings.uploads) == []


def test_what_is_no_bundle_is_refused_and_nothing_stays(api: Api) -> None:
    api.home.add("line")
    tar = api.ask("GET", "/models/line/versions/1/export").content
    for content, media, status in (
        (b"x" * 2000, "application/x-tar", 422),
        (tar[: len(tar) // 2], "application/x-tar", 422),
        (tar, "text/plain", 415),
    ):
        assert api.ask("POST", "/bundles?name=bad", content=content, headers={"content-type": media}).status_code == status
    told = api.ask("POST", "/bundles", content=b"x" * 2000, headers={"content-type": "application/x-tar"}).json()["error"]
    assert told["field"] == "bundle.tar" and told["message"].startswith("bundle.tar is")
    flipped = bytearray(tar)
    flipped[tar.index(b"schema") + 3] ^= 1
    assert api.ask("POST", "/bundles?name=bad", content=bytes(flipped), headers={"content-type": "application/x-tar"}).status_code == 422
    assert [model["name"] for model in api.told("GET", "/models")] == ["line"]
    assert os.listdir(api.plane.settings.uploads) == []


def test_a_bundle_is_taken_up_to_a_cap_whatever_is_declared(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "ARCHIVE_LIMIT_BYTES", 1000)

    async def parts() -> object:
        for _ in range(3):
            yield b"x" * 500

    headers = {"content-type": "application/x-tar"}
    assert api.ask("POST", "/bundles", content=b"x" * 1001, headers=headers).status_code == 413
    assert api.ask("POST", "/bundles", content=parts(), headers=headers).status_code == 413


def test_what_a_killed_process_was_receiving_is_removed(api: Api) -> None:
    folder = api.plane.settings.uploads
    (folder / "received").mkdir(parents=True)
    for left in (folder / "sent.tar", folder / "received" / "bundle.tar"):
        left.write_bytes(b"x")
    api.build()
    assert os.listdir(folder) == []


def test_a_key_for_some_models_sees_and_changes_those_alone(api: Api) -> None:
    api.home.add("line")
    api.home.add("shop")
    mine = api.key("operator", models=("line",))
    assert [model["name"] for model in api.told("GET", "/models", key=mine)] == ["line"]
    assert api.ask("GET", "/models/line/versions", key=mine).status_code == 200
    for method, path in (
        ("GET", "/models/shop/versions"),
        ("GET", "/models/shop/versions/1"),
        ("DELETE", "/models/shop/versions/1"),
        ("POST", "/gc"),
    ):
        assert api.ask(method, path, key=mine).status_code == 403
    # Whether there is such a model or not, so that the answer tells nothing.
    assert api.ask("GET", "/models/none/versions", key=mine).status_code == 403
    assert api.told("DELETE", "/models/line/versions/1", key=mine)["version"] == 1


def test_a_path_of_this_machine_is_no_reference(api: Api, tmp_path: Path) -> None:
    for said in ("/etc/passwd", "./line.tar", "~/line", str(tmp_path)):
        answer = api.ask("POST", "/deployments/line", json={"reference": said})
        assert answer.status_code == 400 and answer.json()["error"]["rule"] == "form"
