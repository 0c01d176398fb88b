"""config: flag > environment > settings.toml > default."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path
from typing import Any

import pytest

from modelyard import config
from modelyard.errors import InvalidConfig


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in config.os.environ if name.startswith("MODELYARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))


def test_each_layer_wins_over_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert config.resolve()[1]["port"] == "default"
    (tmp_path / "settings.toml").write_text("port = 1001\n")
    assert (config.load().port, config.resolve()[1]["port"]) == (1001, "settings.toml")
    monkeypatch.setenv("MODELYARD_PORT", "1002")
    assert (config.load().port, config.resolve()[1]["port"]) == (1002, "environment")
    assert (config.load({"port": 1003}).port, config.resolve({"port": 1003})[1]["port"]) == (1003, "flag")
    assert config.load({"port": None}).port == 1002


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "many"),
        ("PORT", "70000"),
        ("WORKERS", "-1"),
        ("INPUT_SAMPLE_RATE", "2"),
        ("MAX_JSON_BYTES", "0"),
        ("INSECURE", "perhaps"),
        ("REQUEST_TIMEOUT_S", "nan"),
        ("REQUEST_TIMEOUT_S", "inf"),
        ("DRAIN_TIMEOUT_S", "-1"),
        ("DRAIN_TIMEOUT_S", "nan"),
        ("RETENTION_DAYS", "-1"),
        ("MINUTE_PROFILES_HOURS", "-1"),
        ("EXPORT_URL", "somewhere"),
        ("EXPORT_URL", "https://"),
        ("SPOOL_LIMIT_BYTES", "-1"),
        ("PROFILE_ROWS_S", "-1"),
        ("LOG_PREDICTIONS_S", "-1"),
        ("INLINE_LIMIT_S", "nan"),
    ],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"MODELYARD_{name}", value)
    with pytest.raises(InvalidConfig, match=name.lower()):
        config.load()


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("prot = 1\n")
    with pytest.raises(InvalidConfig, match="prot"):
        config.load()


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 60_000, "a = " + "{a=" * 20_000, "a = " + "9" * 60_000, "#" * 65_537], ids=["lists", "tables", "digits", "size"]
)
def test_a_file_that_no_settings_need_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    """One nested deep ended in 3,000 lines of a traceback, one of a single long name in no time that anybody waited for."""
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(InvalidConfig, match=r"settings\.toml (cannot be read as TOML|has more than 64 KiB)") as refused:
        config.load({"home": tmp_path})
    assert "\n" not in refused.value.message


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("port 1")
    with pytest.raises(InvalidConfig, match="TOML"):
        config.load()


def test_a_child_sees_the_settings_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load({"port": 1234, "insecure": True})
    for name, value in config.child_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert config.load() == settings


def test_a_librarys_variable_is_said_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_LIBRARYS", "")
    assert config.is_said("A_LIBRARYS")
    monkeypatch.delenv("A_LIBRARYS")
    assert not config.is_said("A_LIBRARYS")


def test_vertex_ai_names_its_routes_where_it_says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/v1/endpoints/1/deployedModels/2")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/v1/endpoints/1/deployedModels/2:predict")
    assert config.load().vertex_predict_route == ""
    monkeypatch.setenv("AIP_MODE", "PREDICTION")
    settings, sources = config.resolve()
    assert (settings.vertex_health_route, sources["vertex_health_route"]) == ("/v1/endpoints/1/deployedModels/2", "platform")
    monkeypatch.setenv("MODELYARD_VERTEX_PREDICT_ROUTE", "/mine")
    assert config.load().vertex_predict_route == "/mine"
    for wrong in ("mine", "/a b", "/a?b", "/%61"):
        monkeypatch.setenv("MODELYARD_VERTEX_PREDICT_ROUTE", wrong)
        with pytest.raises(InvalidConfig):
            config.load()


def test_a_platforms_port_counts_for_serve_alone_and_after_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.resolve(is_serve=True)[0].port == 8080
    for port, name in ((9003, "PORT"), (9002, "AWS_LWA_PORT"), (9001, "SAGEMAKER_BIND_TO_PORT"), (9000, "AIP_HTTP_PORT")):
        monkeypatch.setenv(name, str(port))
        settings, sources = config.resolve(is_serve=True)
        assert (settings.port, sources["port"]) == (port, "platform"), "the first of them counts"
    assert config.load().port == 8080
    monkeypatch.setenv("MODELYARD_PORT", "9100")
    assert config.resolve(is_serve=True)[0].port == 9100
    assert config.resolve({"port": 9200}, is_serve=True)[0].port == 9200
    monkeypatch.delenv("MODELYARD_PORT")
    monkeypatch.setenv("AIP_HTTP_PORT", "http")
    with pytest.raises(InvalidConfig, match="platform"):
        config.resolve(is_serve=True)


def test_a_platforms_model_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sagemaker, kserve, azure = tmp_path / "sagemaker", tmp_path / "kserve", tmp_path / "azure"
    monkeypatch.setattr(config, "SAGEMAKER_FOLDER", sagemaker)
    monkeypatch.setattr(config, "KSERVE_FOLDER", kserve)
    for name in ("AZUREML_MODEL_DIR", "AIP_STORAGE_URI"):
        monkeypatch.delenv(name, raising=False)
    assert config.model_folder() is None
    kserve.mkdir()
    assert config.model_folder() is None, "an empty mount is none"
    (kserve / "model.tar").write_text("")
    assert config.model_folder() == kserve
    for uri, path in (("/mnt/x", "/mnt/x"), ("file:///mnt/x", "/mnt/x")):
        monkeypatch.setenv("AIP_STORAGE_URI", uri)
        assert config.model_folder() == Path(path)
    monkeypatch.setenv("AIP_STORAGE_URI", "gs://bucket/model")
    assert config.model_folder() == "gs://bucket/model"
    for uri in ("https://x/y", "relative", "memory://x"):
        monkeypatch.setenv("AIP_STORAGE_URI", uri)
        with pytest.raises(InvalidConfig, match="gs://"):
            config.model_folder()
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(azure))
    assert config.model_folder() == azure
    sagemaker.mkdir()
    (sagemaker / "model.tar").write_text("")
    assert config.model_folder() == sagemaker


def test_sagemakers_multi_model_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGEMAKER_MULTI_MODEL", raising=False)
    assert config.multi_model_folder() is None
    for value, is_one in (("true", True), ("false", False), ("", False)):
        monkeypatch.setenv("SAGEMAKER_MULTI_MODEL", value)
        assert (config.multi_model_folder() == Path("/opt/ml/models")) is is_one


def test_the_key_to_show_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELYARD_KEY", raising=False)
    assert config.key() is None
    monkeypatch.setenv("MODELYARD_KEY", "my_x")
    assert config.key() == "my_x"
    assert "my_x" not in repr(config.load()), "no setting holds it"


@pytest.mark.parametrize("url", ["ml.example:8090", "https://", "ftp://ml.example", "https://user:secret@ml.example", "https://ml.example/api"])
def test_a_control_url_is_one_of_a_control_api(tmp_path: Path, url: str) -> None:
    assert config.load({"home": tmp_path, "control_url": "https://ml.example:8090/"}).control_url
    with pytest.raises(InvalidConfig) as refused:
        config.load({"home": tmp_path, "control_url": url})
    assert refused.value.field == "control_url" and "secret" not in refused.value.message


@pytest.mark.parametrize("name", ["control_url", "export_url"])
def test_another_machine_is_asked_over_http_only_where_it_is_named(tmp_path: Path, name: str) -> None:
    """Keys, labels and counts would travel in the clear."""
    plain = "http://ML.example:8090/"
    for url in ("https://ml.example:8090", "http://127.0.0.1:8090", "http://[::1]:8090/", "http://localhost:8090"):
        assert getattr(config.load({"home": tmp_path, name: url}), name) == url
    for others in ("", "http://other.example:8090", "http://ml.example", "http://ml.example:80901"):
        with pytest.raises(InvalidConfig, match=name) as refused:
            config.load({"home": tmp_path, name: plain, "insecure_urls": others})
        assert (refused.value.field, refused.value.rule) == (name, "confidential")
    assert config.load({"home": tmp_path, name: plain, "insecure_urls": "http://other.example, http://ml.example:8090"})
    with pytest.raises(InvalidConfig, match="insecure_urls"):
        config.load({"home": tmp_path, "insecure_urls": "ml.example:8090"})


def test_only_loopback_by_its_own_name_is_loopback(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1.ml.example:8090", "http://localhost.ml.example", "http://0.0.0.0:8090"):
        with pytest.raises(InvalidConfig):
            config.load({"home": tmp_path, "control_url": url})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"oidc_issuer": "http://login.example"}, "oidc_issuer"),
        ({"oidc_issuer": "login.example"}, "oidc_issuer"),
        ({"oidc_issuer": "https://login.example?a=b"}, "oidc_issuer"),
        ({"oidc_audience": ""}, "oidc_audience"),
        ({"oidc_roles": ""}, "oidc_roles"),
        ({"oidc_roles_claim": ""}, "oidc_roles_claim"),
        ({"oidc_keys_url": "http://login.example/keys"}, "oidc_keys_url"),
        ({"oidc_keys_url": "https://login.example/keys", "oidc_keys_file": "keys.json"}, "oidc_keys_file"),
        ({"oidc_max_life_s": 0}, "oidc_max_life_s"),
        ({"oidc_keys_max_age_s": float("nan")}, "oidc_keys_max_age_s"),
    ],
)
def test_an_issuer_is_said_whole_and_over_https(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    good = {"home": tmp_path, "oidc_issuer": "https://login.example", "oidc_audience": "modelyard", "oidc_roles": "ops=operator"}
    assert config.load(good).oidc_max_life_s == 3600
    assert config.load({**good, "oidc_issuer": "http://127.0.0.1:9"}).oidc_roles_claim == "groups"
    with pytest.raises(InvalidConfig) as refused:
        config.load({**good, **change})
    assert refused.value.field == field


def test_settings_that_name_files_are_settled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELYARD_KEYS_FILE", "keys")
    monkeypatch.setenv("MODELYARD_TLS_CERT_FILE", "~/here.crt")
    settings = config.load()
    assert settings.keys_file == str(tmp_path / "keys") and settings.access_keys == tmp_path / "keys"
    assert settings.tls_cert_file == str(Path("~/here.crt").expanduser()) and settings.tls_key_file == ""


def test_a_fork_has_the_environment_that_it_is_given_and_no_other() -> None:
    before = dict(os.environ)
    try:
        config.take_environment({"ONLY": "this"})
        assert dict(os.environ) == {"ONLY": "this"}
    finally:
        config.take_environment(before)


def test_stores_are_named_by_urls(tmp_path: Path) -> None:
    for setting, value in (("records_url", "mysql://host/db"), ("records_url", "host"), ("blobs_url", "bucket"), ("blobs_url", "/srv/blobs")):
        with pytest.raises(InvalidConfig, match=setting):
            config.load({"home": tmp_path, setting: value})
    given = {"records_url": "postgresql://ada@db/records", "blobs_url": "s3://bucket/prefix"}
    assert config.load({"home": tmp_path, **given}).blobs_url == "s3://bucket/prefix"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:s3cr3t@db:5432/records", "postgresql://ada:***@db:5432/records"),
        ("postgresql://ada:s:3@cr3t@db/records", "postgresql://ada:***@db/records"),
        ("postgresql://ada:a/b c@h/records?sslmode=require&sslpassword=s3cr3t", "postgresql://ada:***@h/records?sslmode=require&sslpassword=***"),
        ("abfs://box@account/x?Account_Key=s3cr3t#top", "abfs://box@account/x?Account_Key=***#top"),
        ("http://traces:4318/v1@2", "http://traces:***@2"),  # rather too much than too little
        ("postgresql:///records?host=/run&password=s3cr3t&user=ada", "postgresql:///records?host=/run&password=***&user=ada"),
        ("postgresql://ada@db/records", "postgresql://ada@db/records"),
        ("s3://bucket/prefix:1", "s3://bucket/prefix:1"),
        (8080, "8080"),
    ],
)
def test_a_password_is_not_shown(url: object, shown: str) -> None:
    assert config.without_password(url) == shown


def test_the_data_plane_is_not_told_of_the_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    issuer = {"oidc_issuer": "https://login.example", "oidc_audience": "a", "oidc_roles": "a=viewer"}
    settings = config.load({"home": tmp_path, "records_url": "postgresql://ada:s3cr3t@db/records", "blobs_url": "s3://bucket", **issuer})
    told, not_told = config.child_environment(settings), config.child_environment(settings, is_serve=True)
    assert told["MODELYARD_RECORDS_URL"] == settings.records_url and told["AWS_SECRET_ACCESS_KEY"] == "s3cr3t"
    assert "s3cr3t" not in "".join(not_told.values()) and not_told["MODELYARD_RECORDS_URL"] == not_told["MODELYARD_BLOBS_URL"] == ""
    assert told["MODELYARD_OIDC_ISSUER"] == "https://login.example" and not_told["MODELYARD_OIDC_ISSUER"] == ""
    assert not_told.keys() - config.ONE_THREAD.keys() == told.keys() - {"AWS_SECRET_ACCESS_KEY"} - config.ONE_THREAD.keys()


def test_the_data_plane_counts_with_one_thread_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert config.child_environment(config.load(), is_serve=True)["OPENBLAS_NUM_THREADS"] == "1"
    assert "OPENBLAS_NUM_THREADS" not in config.child_environment(config.load())
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert config.child_environment(config.load(), is_serve=True)["OPENBLAS_NUM_THREADS"] == "3"


def test_where_observations_also_go_is_said_or_follows_from_the_store_that_hosts_share(tmp_path: Path) -> None:
    alone = config.Settings(home=tmp_path, blobs_url="s3://b/x")
    assert alone.shared_url == ""
    several = config.Settings(home=tmp_path, blobs_url="s3://b/x/", records_url="postgresql://h/d")
    assert several.shared_url == "s3://b/x/observations"
    assert config.Settings(home=tmp_path, records_url="postgresql://h/d", blobs_url="s3://b/x", export_url="https://h:1").shared_url == "https://h:1"


def test_workers_are_not_told_where_observations_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    settings = config.Settings(home=tmp_path, export_url="s3://b", export_key_file="/k")
    worker, exporter = config.child_environment(settings, is_serve=True), config.child_environment(settings)
    assert (worker["MODELYARD_EXPORT_URL"], worker["MODELYARD_EXPORT_KEY_FILE"]) == ("", "") and "AWS_SECRET_ACCESS_KEY" not in worker
    assert (exporter["MODELYARD_EXPORT_URL"], exporter["AWS_SECRET_ACCESS_KEY"]) == ("s3://b", "x")


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "MODELYARD_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    with pytest.raises(InvalidConfig, match="this user has no home folder; set MODELYARD_HOME"):
        config.load()
    assert config.load({"home": "/elsewhere"}).home == Path("/elsewhere")


def test_a_settings_file_that_may_not_be_read_is_told_from_one_that_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").mkdir()
    with pytest.raises(InvalidConfig, match=r"cannot be read \(Is a directory\); set MODELYARD_HOME"):
        config.load({"home": tmp_path})
    (tmp_path / "settings.toml").rmdir()
    (tmp_path / "settings.toml").write_text("=")
    with pytest.raises(InvalidConfig, match="cannot be read as TOML"):
        config.load({"home": tmp_path})


def test_temporary_files_lie_in_the_home_where_nothing_else_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    config.ensure_temporary_folder(tmp_path / "home")
    assert not (tmp_path / "home").exists() and os.environ["TMPDIR"] == ""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "nowhere")])
    config.ensure_temporary_folder(tmp_path / "home")
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(tmp_path / "home" / "tmp")
    assert (tmp_path / "home" / "tmp").stat().st_mode & 0o777 == 0o700
