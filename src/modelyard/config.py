"""Settings: the only reader of environment variables and settings files.

Hides where a value came from (flag > environment > the platform's variables > `settings.toml` in the home > default) behind one frozen value. It must
have no effect at import. The one secret that it may hold, a password in `records_url`, is never shown and does not reach the data plane.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelyard.errors import InvalidConfig
from modelyard.files import make_folder

PREFIX = "MODELYARD_"
PORT_VARIABLES = ("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT", "AWS_LWA_PORT", "PORT")
"""What platforms name the port that `serve` should listen on, the first that is set counts."""

FILES = (
    "keys_file",
    "alerts_file",
    "tls_cert_file",
    "tls_key_file",
    "tls_client_ca_file",
    "export_key_file",
    "export_ca_file",
    "control_ca_file",
    "oidc_keys_file",
    "oidc_ca_file",
)
"""Settings that name a file: `~` is understood, and what follows from the folder of the call is settled here, once for all processes."""

FILE_LIMIT_BYTES = 64 << 10
"""Of `settings.toml`."""

SAGEMAKER_MODELS = Path("/opt/ml/models")
MODEL_STORES = ("gs", "s3", "abfs", "abfss", "az")
"""Schemes of the stores from which a platform's model is fetched."""
SAGEMAKER_FOLDER, KSERVE_FOLDER = Path("/opt/ml/model"), Path("/mnt/models")
DIALECTS = ("none", "kserve", "mlserver", "triton", "tfserving")
"""Whose names metrics have beside ours."""
STORES = ("PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""What opens the stores of records and blobs, which the data plane has no business with."""
SECRET_PREFIX = "MODELYARD_SECRET_"  # noqa: S105
"""How variables begin that hold secrets of alert routes; the data plane has no business with those either."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Processes are what is many: numpy would start a thread per core, which only wait for work, and wait busily."""

LOG_FORMATS = ("auto", "json", "text")
"""`auto` is text where stderr is a terminal, JSON elsewhere."""


_USER = re.compile(r"(?<=://)([^:/@]*):.*@")
_PARAMETER = re.compile(r"([?&][^=&#]*(?:password|secret|token|key)[^=&#]*=)[^&#]*", re.IGNORECASE)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, with its default. Units stand in the names; `workers` 0 means one per core that this process may use."""

    home: Path = Path("~/.modelyard")
    records_url: str = ""
    blobs_url: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int = 8081
    control_host: str = "127.0.0.1"
    control_port: int = 8090
    control_url: str = ""
    control_ca_file: str = ""
    workers: int = 0
    insecure: bool = False
    insecure_urls: str = ""
    keys_file: str = ""
    alerts_file: str = ""
    allowed_hosts: str = ""
    prometheus_urls: str = "http://127.0.0.1:9090,http://localhost:9090"
    vertex_health_route: str = ""
    vertex_predict_route: str = ""
    insecure_loading: bool = False
    load_timeout_s: float = 60.0
    memory_limit_bytes: int = 0
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_client_ca_file: str = ""
    tls_client_names: str = ""
    max_json_bytes: int = 4 << 20
    max_body_bytes: int = 16 << 20
    max_message_bytes: int = 4 << 20
    max_connections: int = 4096
    max_batch_rows: int = 1024
    max_queue_rows: int = 8192
    max_concurrency: int = 128
    request_timeout_s: float = 30.0
    inline_limit_s: float = 0.0003
    drain_timeout_s: float = 8.0
    isolation: str = "strong"
    isolated_processes: int = 1
    isolated_memory_bytes: int = 4 << 30
    isolated_start_timeout_s: float = 60.0
    profile_rows_s: int = 5_000
    log_predictions_s: int = 200
    input_sample_rate: float = 0.01
    spool_limit_bytes: int = 256 << 20
    retention_days: int = 183
    minute_counters_hours: int = 96
    minute_profiles_hours: int = 26
    hour_windows_days: int = 35
    export_url: str = ""
    export_key_file: str = ""
    export_ca_file: str = ""
    oidc_issuer: str = ""
    oidc_audience: str = ""
    oidc_roles: str = ""
    oidc_roles_claim: str = "groups"
    oidc_models_claim: str = ""
    oidc_max_life_s: float = 3600.0
    oidc_keys_url: str = ""
    oidc_keys_file: str = ""
    oidc_keys_max_age_s: float = 86_400.0
    oidc_ca_file: str = ""
    metrics_dialect: str = "none"
    log_format: str = "auto"
    trace_endpoint: str = ""
    trace_sample_rate: float = 0.01

    @property
    def run(self) -> Path:
        """Files that live with the running processes: states, sockets' addresses, pids."""
        return self.home / "run"

    @property
    def plan(self) -> Path:
        """The one plan file of this host."""
        return self.home / "plan.json"

    @property
    def access_keys(self) -> Path:
        """The access keys of the data plane: `keys_file` where it is set, else the home's."""
        return _path(self.keys_file) if self.keys_file else self.home / "keys" / "access.json"

    @property
    def alert_routes(self) -> Path:
        """The file that says where alerts go: `alerts_file` where it is set, else the home's."""
        return _path(self.alerts_file) if self.alerts_file else self.home / "alerts.toml"

    @property
    def uploads(self) -> Path:
        """Bundles on their way in and out through the control API."""
        return self.home / "uploads"

    @property
    def spool(self) -> Path:
        """Where workers leave observations for the control process."""
        return self.home / "spool"

    @property
    def shared_url(self) -> str:
        """Where this home's observations also go: `export_url`, else, where several hosts have one store of records, beside their blobs."""
        beside_blobs = f"{self.blobs_url.rstrip('/')}/observations" if self.records_url and self.blobs_url else ""
        return self.export_url or beside_blobs


def load(flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings in force; `flags` with value None count as not given. Raises InvalidConfig naming setting and source."""
    return resolve(flags)[0]


def resolve(flags: Mapping[str, Any] | None = None, *, is_serve: bool = False) -> tuple[Settings, dict[str, str]]:
    """The settings in force and, per setting, its source: `flag`, `environment`, `platform`, `settings.toml` or `default`.

    `is_serve` says that this process is what a platform starts in a container: then its choice of a port counts.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise InvalidConfig(f"no such setting: {', '.join(unknown)}", field=unknown[0])
    environment = {name: os.environ[key] for name in fields if (key := PREFIX + name.upper()) in os.environ}
    platform = _platform(os.environ) | (_platform_port(os.environ) if is_serve else {})
    home = _path(given.get("home") or environment.get("home") or fields["home"].default)
    in_file = _read_file(home / "settings.toml", fields.keys() - {"home"})
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, field in fields.items():
        layers = (("flag", given), ("environment", environment), ("platform", platform), ("settings.toml", in_file))
        for source, layer in layers:
            if name in layer:
                values[name], sources[name] = _convert(layer[name], field.type, name, source), source
                break
        else:
            sources[name] = "default"
    values["home"] = home
    values |= {name: str(_path(values[name])) for name in FILES if values.get(name)}
    settings = Settings(**values)
    _check(settings)
    return settings, sources


def _platform(variables: Mapping[str, str]) -> dict[str, str]:
    """Settings that a platform gives by variables of its own, where it says that it is there: Vertex AI by `AIP_MODE`."""
    if variables.get("AIP_MODE") != "PREDICTION":
        return {}
    named = {"vertex_health_route": "AIP_HEALTH_ROUTE", "vertex_predict_route": "AIP_PREDICT_ROUTE"}
    return {setting: variables[name] for setting, name in named.items() if variables.get(name)}


def _platform_port(variables: Mapping[str, str]) -> dict[str, str]:
    found = (variables[name] for name in PORT_VARIABLES if variables.get(name))
    return {"port": port} if (port := next(found, None)) is not None else {}


def model_folder() -> Path | str | None:
    """Where the platform that started this container has put the model, a folder or the URL of a place in a store; None where it names none. Raises
    InvalidConfig."""
    storage, azure = os.environ.get("AIP_STORAGE_URI"), os.environ.get("AZUREML_MODEL_DIR")
    if _holds_something(SAGEMAKER_FOLDER):
        return SAGEMAKER_FOLDER
    if azure:
        return Path(azure)
    if storage:
        if storage.partition("://")[0] in MODEL_STORES:
            return storage
        path = storage.removeprefix("file://")
        if not path.startswith("/"):
            named = ", ".join(f"{scheme}://" for scheme in MODEL_STORES)
            raise InvalidConfig(f"AIP_STORAGE_URI is an absolute path, or a place that begins with {named}", field="AIP_STORAGE_URI", rule="form")
        return Path(path)
    return KSERVE_FOLDER if _holds_something(KSERVE_FOLDER) else None


def multi_model_folder() -> Path | None:
    """Where SageMaker puts the models of a multi-model endpoint, when it says that this container is one."""
    return SAGEMAKER_MODELS if os.environ.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true" else None


def _holds_something(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is not None
    except OSError:
        return False


def _convert(value: Any, kind: Any, name: str, source: str) -> Any:
    if kind is Path:
        return _path(value)
    if kind is bool and isinstance(value, str):
        value = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(value.lower(), value)
    try:
        return msgspec.convert(value, kind, strict=source == "settings.toml")
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"{name} from {source}: expected {kind.__name__}", field=name, rule="type") from error


def _check(settings: Settings) -> None:
    _check_route("vertex_health_route", settings.vertex_health_route)
    _check_route("vertex_predict_route", settings.vertex_predict_route)
    for name in ("port", "control_port"):
        if not 0 <= getattr(settings, name) <= 65535:
            raise InvalidConfig(f"{name} is a number from 0 to 65535", field=name, rule="range")
    if not -1 <= settings.grpc_port <= 65535:
        raise InvalidConfig("grpc_port is a number from 0 to 65535, or -1 for none", field="grpc_port", rule="range")
    for name in ("input_sample_rate", "trace_sample_rate"):
        if not 0 <= getattr(settings, name) <= 1:
            raise InvalidConfig(f"{name} is a share from 0 to 1", field=name, rule="range")
    if settings.trace_endpoint and not settings.trace_endpoint.startswith(("http://", "https://")):
        raise InvalidConfig("trace_endpoint is the http or https URL of an OTLP receiver", field="trace_endpoint", rule="url")
    if settings.records_url and not settings.records_url.startswith(("postgresql://", "postgres://")):
        raise InvalidConfig("records_url is postgresql://USER@HOST/DATABASE, or empty for the home's own file", field="records_url", rule="url")
    if settings.blobs_url and not re.match(r"[a-z][a-z0-9+.-]*://", settings.blobs_url):
        raise InvalidConfig("blobs_url is a URL such as s3://BUCKET/PREFIX, or empty for the home's own folder", field="blobs_url", rule="url")
    if settings.control_url and not re.match(r"https?://[^/@]+$", settings.control_url.rstrip("/")):
        raise InvalidConfig("control_url is a control API: https://HOST or http://HOST:8090", field="control_url", rule="url")
    if settings.export_url and not re.match(r"[a-z][a-z0-9+.-]*://.", settings.export_url):
        raise InvalidConfig(
            "export_url is a control API (https://HOST:8090) or a store (s3://BUCKET/PREFIX), or empty", field="export_url", rule="url"
        )
    _check_outgoing(settings)
    if not 0 <= settings.workers <= 512:
        raise InvalidConfig("workers is a number from 0 (one per core) to 512", field="workers", rule="range")
    if settings.isolation not in ("strong", "weak"):
        raise InvalidConfig("isolation is strong or weak", field="isolation", rule="choice")
    if not 1 <= settings.isolated_processes <= 64:
        raise InvalidConfig("isolated_processes is a number from 1 to 64", field="isolated_processes", rule="range")
    for name in (
        "max_json_bytes", "max_body_bytes", "max_message_bytes", "max_connections", "max_batch_rows", "max_queue_rows", "max_concurrency",
        "request_timeout_s", "isolated_memory_bytes", "isolated_start_timeout_s", "load_timeout_s",
        "oidc_max_life_s", "oidc_keys_max_age_s",
    ):  # fmt: skip
        if not 0 < getattr(settings, name) < math.inf:  # NaN fails as well
            raise InvalidConfig(f"{name} is a number above 0", field=name, rule="range")
    for name in (
        "inline_limit_s",
        "drain_timeout_s",
        "profile_rows_s",
        "log_predictions_s",
        "spool_limit_bytes",
        "retention_days",
        "minute_counters_hours",
        "minute_profiles_hours",
        "hour_windows_days",
        "memory_limit_bytes",
    ):
        if not 0 <= getattr(settings, name) < math.inf:
            raise InvalidConfig(f"{name} is a number from 0", field=name, rule="range")

    if settings.oidc_issuer:
        _check_issuer(settings)
    if settings.metrics_dialect not in DIALECTS:
        raise InvalidConfig(f"metrics_dialect is one of {', '.join(DIALECTS)}", field="metrics_dialect", rule="known")
    if settings.log_format not in LOG_FORMATS:
        raise InvalidConfig(f"log_format is one of {', '.join(LOG_FORMATS)}", field="log_format", rule="known")


def _check_outgoing(settings: Settings) -> None:
    """Keys, labels and counts leave this machine in the clear only for a place that the operator has named as such."""
    accepted = {url.strip().rstrip("/").lower() for url in settings.insecure_urls.split(",") if url.strip()}
    if not all(url.startswith("http://") for url in accepted):
        raise InvalidConfig("insecure_urls are http URLs, separated by commas", field="insecure_urls", rule="url")
    for name, authority in (("control_url", "control_ca_file"), ("export_url", "export_ca_file")):
        url = getattr(settings, name)
        if not url.startswith("http://") or url.rstrip("/").lower() in accepted:
            continue
        from modelyard.exchange import is_confidential  # most homes ask no other machine

        if not is_confidential(url.rstrip("/")):
            raise InvalidConfig(
                f"{name}: over http to another machine keys and all else can be read and changed on the way; give its https URL ({authority} for an "
                "authority of your own), or name it in insecure_urls",
                field=name, rule="confidential",
            )  # fmt: skip


def _check_issuer(settings: Settings) -> None:
    from modelyard.exchange import is_confidential  # most homes have no issuer

    if not is_confidential(settings.oidc_issuer) or set(settings.oidc_issuer) & set("?#"):
        raise InvalidConfig("oidc_issuer is the issuer's https URL (http on loopback alone), as its tokens say it", field="oidc_issuer", rule="url")
    if settings.oidc_keys_url and not is_confidential(settings.oidc_keys_url):
        raise InvalidConfig("oidc_keys_url is an https URL (http on loopback alone)", field="oidc_keys_url", rule="url")
    if settings.oidc_keys_url and settings.oidc_keys_file:
        raise InvalidConfig("oidc_keys_url and oidc_keys_file both say where the keys are; give one of them", field="oidc_keys_file", rule="unique")
    for name in ("oidc_audience", "oidc_roles", "oidc_roles_claim"):
        if not getattr(settings, name):
            raise InvalidConfig(f"tokens of oidc_issuer are accepted with {name} alone; say it", field=name, rule="required")


def _check_route(name: str, route: str) -> None:
    if route and not (route.startswith("/") and route.isascii() and route.isprintable() and not set(route) & set(" ?#%")):
        raise InvalidConfig(f"{name} is a path: it begins with / and has no query", field=name, rule="path")


def _read_file(path: Path, known: set[str]) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT_BYTES + 1)
        if len(content) > FILE_LIMIT_BYTES:
            raise InvalidConfig(f"{path} has more than {FILE_LIMIT_BYTES >> 10} KiB, which no settings need")
        import tomllib  # most homes have no such file, and every process that starts would wait for it

        values = tomllib.loads(content.decode("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read ({error.strerror}); set {PREFIX}HOME to a folder of this user's") from error
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"{path} cannot be read as TOML: {error}") from error
    unknown = sorted(set(values) - known)
    if unknown:
        raise InvalidConfig(f"settings.toml: no such setting: {', '.join(unknown)}", field=unknown[0])
    return values


def _path(value: Any) -> Path:
    try:
        return Path(os.path.abspath(Path(str(value)).expanduser()))
    except RuntimeError as error:  # no HOME, and a user that the system does not know, as a container's may be
        raise InvalidConfig(f"{value}: this user has no home folder; set {PREFIX}HOME to a folder that it may write", rule="home") from error


def shown(settings: Settings) -> dict[str, tuple[Any, str]]:
    """The value and source of each setting in force, as may be told: without passwords."""
    _, sources = resolve({"home": settings.home})
    return {field.name: (_told(getattr(settings, field.name)), sources[field.name]) for field in msgspec.structs.fields(Settings)}


def key() -> str | None:
    """The access key (or token) to show to a server, from MODELYARD_KEY: an argument would be seen by every user of the machine."""
    return os.environ.get(f"{PREFIX}KEY") or None


def secret(name: str) -> str | None:
    """What the environment's variable `name`, which begins with `SECRET_PREFIX`, holds. Raises InvalidConfig for a name of another kind."""
    if not name.startswith(SECRET_PREFIX):
        raise InvalidConfig(f"a variable that holds a secret is called {SECRET_PREFIX}…, so that the data plane does not inherit it", rule="name")
    return os.environ.get(name) or None


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def user() -> str:
    """The name of the local user, for Principal `local:<user>`."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def ensure_temporary_folder(home: Path) -> None:
    """Where the system gives this process no folder for temporary files, since all else may only be read, make it one in `home`: for it and for the
    processes that it starts. Raises InvalidConfig where that cannot be written either."""
    import tempfile

    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        os.environ["TMPDIR"] = tempfile.tempdir = str(make_folder(home / "tmp"))


def is_said(name: str) -> bool:
    """Whether the environment sets `name`, a variable of a library's."""
    return name in os.environ


def quiet_onnxruntime() -> None:
    """Switch onnxruntime's telemetry off; must run before `import onnxruntime` (1.29 and later start a thread and write files)."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def bare_environment() -> dict[str, str]:
    """The environment for a process that runs a model's own code: where the system's libraries lie, one thread, and nothing else of this one's."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return {**kept, **ONE_THREAD, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2", "ORT_DISABLE_TELEMETRY": "1"}


def _told(value: Any) -> Any:
    return without_password(value) if isinstance(value, str | Path) else value


def without_password(value: object) -> str:
    """A setting's value as it may be shown: a URL without the password in it, nor another parameter whose name says that it is secret."""
    return _PARAMETER.sub(r"\1***", _USER.sub(r"\1:***@", str(value)))


def child_environment(settings: Settings, *, is_serve: bool = False) -> dict[str, str]:
    """The environment for a process of ours: this one's, with every setting that is in force spelled out; for the data plane without `STORES`,
    what begins with `SECRET_PREFIX`, and the issuer, whose tokens it does not read.

    There numpy has one thread, unless this environment says otherwise.
    """
    fields = msgspec.structs.fields(Settings)
    spelled = {PREFIX + field.name.upper(): str(getattr(settings, field.name)) for field in fields}
    environment = {**os.environ, **spelled, "ORT_DISABLE_TELEMETRY": "1"}
    if is_serve:
        environment = {**ONE_THREAD, **environment}
        spelled_out = {f"{PREFIX}{name}": "" for name in ("RECORDS_URL", "BLOBS_URL", "EXPORT_URL", "EXPORT_KEY_FILE", "OIDC_ISSUER")}
        kept = {name: value for name, value in environment.items() if name not in STORES and not name.startswith(SECRET_PREFIX)}
        environment = kept | spelled_out
    return environment


def take_environment(environment: Mapping[str, str]) -> None:
    """Let this process, a fork, have `environment` and nothing else, as if it had been started with it."""
    os.environ.clear()
    os.environ.update(environment)
