"""`serve`: the data plane alone, for bundles of the registry or from files, until Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard import config
from modelyard.cli.show import Home, Json
from modelyard.errors import InvalidConfig, NotFound

if TYPE_CHECKING:
    from modelyard.control.plane import ControlPlane
    from modelyard.registry import Version
    from modelyard.security.seal import Trust
    from modelyard.types import Digest, HostPlan


RUN_PREFIX = "modelyard-serve-"
UNUSED_S = 60.0
FILLING = "filling.lock"
"""Who fills a run folder holds this file in it until the server that runs from it has a lock of its own: what is fetched may take hours."""
LOCKS = (FILLING, "serve.lock")
FETCHED, FETCHED_BYTES = "fetched", 16 << 30
"""The folder, beside the plan, of what a platform had in a store, and how much that may be."""


def serve(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="REF...", help="churn, churn:3, churn@champion, or a bundle's folder or .tar.")
    ] = None,
    *,
    dynamic: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Let callers with a key, or here, load and unload the bundles in it.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port for gRPC; 0 is any free one, -1 none.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: this machine alone).")] = None,
    workers: Annotated[int | None, typer.Option(help="Serving processes; 0 is one per core.")] = None,
    insecure: Annotated[bool | None, typer.Option("--insecure", help="Serve other machines without an access key.")] = None,
    isolation: Annotated[
        str | None, typer.Option(help="`weak` runs models that are code even where they cannot be shut off from network and files.")
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Send what is observed to a control API (https://HOST:8090), or to a store (s3://BUCKET/PREFIX)."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Serve bundles by the data plane alone, without a control process, until Ctrl-C.

    Each is opened, so every byte and both seals are verified, and answers its golden records before it takes a request.
    """
    from modelyard.control.plane import ControlPlane
    from modelyard.registry import is_file
    from modelyard.security.seal import Trust
    from modelyard.serve.access import is_loopback
    from modelyard.serve.supervisor import run
    from modelyard.types import write_plan

    if dynamic is not None and not dynamic.is_dir():
        raise NotFound(f"no such folder: {dynamic}", field="dynamic")
    flags = {"home": home, "port": port, "grpc_port": grpc_port, "host": host, "workers": workers, "insecure": insecure, "isolation": isolation}
    flags["export_url"] = export
    settings, sources = config.resolve(flags, is_serve=True)
    # Platforms start an image with the argument `serve` behind its own; a model of that name is written serve:1.
    named = [reference for reference in references or [] if reference != "serve"]
    if not named and dynamic is None:
        dynamic = config.multi_model_folder()
    if sources["port"] == "platform" and is_loopback(settings.host):
        print("modelyard: a platform chose the port, but this listens on loopback; say --host 0.0.0.0, with keys or --insecure", file=sys.stderr)
    config.ensure_temporary_folder(settings.home)
    tidy(Path(tempfile.gettempdir()))
    run_folder = Path(tempfile.mkdtemp(prefix=RUN_PREFIX))
    with contextlib.ExitStack() as held:
        held.callback(shutil.rmtree, run_folder, ignore_errors=True)
        with filling(run_folder):
            if not named and dynamic is None:
                named = _found(run_folder)
            # Bundles in files need no registry, and so no home that may be written: that of an image may only be read.
            with ControlPlane(settings) if not all(map(is_file, named)) else contextlib.nullcontext() as plane:
                plan = _plan(plane, named, run_folder, held, trust=Trust(settings.home / "keys"))
            shutil.rmtree(run_folder / FETCHED, ignore_errors=True)  # the plan has its own copy, verified
            write_plan(run_folder / "plan.json", plan)  # which makes the folder young again, until its server holds it
        exports = bool(settings.export_url)
        spool = run_folder / "spool" if exports else None
        sys.exit(run(settings, run_folder / "plan.json", run_folder, spool, as_json=json, needs_models=True, dynamic=dynamic, exports=exports))


@contextlib.contextmanager
def filling(run_folder: Path) -> Iterator[None]:
    """Let nobody take `run_folder` for one that was left, while the block runs and this process lives."""
    descriptor = os.open(run_folder / FILLING, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def tidy(folder: Path) -> None:
    """Remove the run folders in `folder` of servers that were killed, or of fetches: of this user, not new, locked by nobody."""
    for path in folder.glob(f"{RUN_PREFIX}*"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or time.time() - status.st_mtime < UNUSED_S:
                continue
            found = [path / name for name in LOCKS if (path / name).exists()]
            for lock in found:
                descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                opened.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if found:
                shutil.rmtree(path, ignore_errors=True)


def _found(run_folder: Path) -> list[str]:
    """The bundles in the folder that a platform gives, or in the place in a store that it names, of which all is fetched. Raises InvalidConfig where
    there is none."""
    from modelyard.bundle import archive

    folder = config.model_folder()
    if folder is None:
        raise InvalidConfig("say what to serve: a REF, or --dynamic FOLDER", field="references")
    if isinstance(folder, str):
        from modelyard.registry.stores import Store  # fsspec takes a second to load, and no other server needs it

        place = Store(folder, setting="AIP_STORAGE_URI")
        folder = run_folder / FETCHED
        place.fetch(folder, limit_bytes=FETCHED_BYTES)
    found = archive.find(folder)
    if not found:
        raise InvalidConfig(f"{folder} holds no bundle: neither a .tar nor an OCI image layout", field="references")
    return [str(path) for path in found]


def _plan(plane: ControlPlane | None, references: list[str], folder: Path, held: contextlib.ExitStack, *, trust: Trust) -> HostPlan:
    """One deployment per model; of several versions of one, the first named answers and the others are reached by their number. Without `plane` they
    are files.

    What lies in the registry is held until `held` ends: a worker that is started again needs it, whatever was deleted meanwhile.
    """
    from modelyard.control.plane import open_file, unpack
    from modelyard.types import HostPlan, Placement, TrafficPlan

    versions: dict[str, dict[Digest, int]] = {}
    placements: dict[Digest, Placement] = {}
    registered: dict[Digest, Version] = {}
    for number, reference in enumerate(references):
        opened, version = plane.open(reference) if plane is not None else (open_file(Path(reference), trust), None)
        name = version.name if version is not None else opened.name
        if version is not None:
            registered[opened.digest] = version
        else:
            blobs = folder / f"bundle-{number}"
            blobs.mkdir()
            placements[opened.digest] = unpack(Path(reference), blobs)
        known = versions.setdefault(name, {})
        if opened.digest not in known:
            known[opened.digest] = version.version if version is not None else 1
        if len(set(known.values())) < len(known):
            raise InvalidConfig(f"two bundles named {name} have the same version number; import one under another name", field="reference")
    if registered and plane is not None:
        blobs = held.enter_context(plane.registry.hold(registered.values()))
        placements |= {digest: Placement(blobs=str(blobs), index=version.index) for digest, version in registered.items()}
    plans = tuple(
        TrafficPlan(name=name, generation=1, weights={next(iter(known)): 100}, versions=known, hold=tuple(known)[1:])
        for name, known in versions.items()
    )
    return HostPlan(sequence=1, plans=plans, placements=placements)
