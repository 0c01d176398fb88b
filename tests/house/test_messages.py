"""The checked-in descriptor set is what the .proto files beside it say; `make messages` writes it."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

FOLDER = Path(__file__).parents[2] / "src" / "modelyard" / "protocols" / "proto"
SET = FOLDER / "messages.binpb"


def compiled(folder: Path, into: Path) -> bytes:
    """The descriptor set of the .proto files in `folder`, with what they import."""
    from grpc_tools import protoc

    well_known = resources.files("grpc_tools") / "_proto"
    files = sorted(path.name for path in folder.glob("*.proto"))
    assert files
    assert protoc.main(["protoc", f"-I{folder}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={into}", *files]) == 0
    return into.read_bytes()


def test_the_set_is_what_the_files_say(tmp_path: Path) -> None:
    assert SET.read_bytes() == compiled(FOLDER, tmp_path / "set.binpb"), "run `make messages`"


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    for path in FOLDER.glob("*.proto"):
        (tmp_path / path.name).write_text(path.read_text("utf-8").replace("string model_name = 1;", "string model_name = 9;"), "utf-8")
    assert SET.read_bytes() != compiled(tmp_path, tmp_path / "set.binpb")


def test_every_package_that_clients_name_is_there() -> None:
    packages = {file.package for file in FileDescriptorSet.FromString(SET.read_bytes()).file}
    ours = {"inference", "inference.model_repository", "tensorflow", "tensorflow.serving", "grpc.health.v1", "grpc.reflection.v1"}
    assert packages >= ours | {"grpc.reflection.v1alpha"}


if __name__ == "__main__":
    sys.stdout.write(f"{len(compiled(FOLDER, SET)):,} bytes\n")
