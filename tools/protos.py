"""Generates `libs/aiomesh_protos` from `protos/`, and lints `protos/` with buf.

`python tools/protos.py generate` writes the code, and the descriptors that Envoy transcodes JSON with; `python
tools/protos.py lint` lints. Both compile with grpcio-tools, which carries protoc; googleapis-common-protos carries the
imported google protos, so nothing is fetched.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.api import annotations_pb2  # type: ignore[import-untyped] # it has no types
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.type import money_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = ROOT / "libs" / "aiomesh_protos" / "src"
IMPORTED = (Path(money_pb2.__file__).parents[2], Path(grpc_tools.__file__).with_name("_proto"))
"""The folder of the google protos that ours import."""
PROGRAMS = Path(sys.executable).parent
PLUGINS = [
    f"--plugin={PROGRAMS / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc", "protoc-gen-connectrpc")
]


TRANSCODED = ROOT / "deploy" / "gateways" / "envoy" / "storefront.binpb"
"""The descriptors of Envoy's configuration."""

CONNECT = "aiomesh/storefront/*/*_service.proto"
"""The protos whose services speak Connect and gRPC-Web."""

ERRORS = ("google/rpc/error_details.proto", "google/rpc/status.proto")


def main() -> None:
    """Runs the command named by the first argument."""
    match sys.argv[1:]:
        case ["generate"]:
            generate(GENERATED)
            describe_transcoding(TRANSCODED)
        case ["lint"]:
            sys.exit(lint())
        case _:
            sys.exit(__doc__)


def generate(target: Path, protos: Path = PROTOS) -> None:
    """Replaces the messages, stubs and their types below `target`."""
    shutil.rmtree(target / "aiomesh", ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    compile_protos(protos, "*.proto", f"--python_out={target}", f"--mypy_out=quiet:{target}")
    compile_protos(protos, "*_service.proto", f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}")
    compile_protos(protos, CONNECT, f"--connectrpc_out=protobuf=google,io=async:{target}")
    (target / "aiomesh" / "py.typed").touch()


def describe(image: Path, protos: Path = PROTOS) -> None:
    """Writes the descriptors of all protos, with comments and imports, to the file `image`."""
    compile_protos(protos, "*.proto", "--include_imports", "--include_source_info", f"--descriptor_set_out={image}")


def describe_transcoding(image: Path) -> None:
    """Writes the descriptors of the storefront, and of the details of errors, to the file `image`.

    Without `response_body`, which Envoy refuses: https://github.com/envoyproxy/envoy/issues/11136.
    """
    compile_protos(PROTOS, CONNECT, "--include_imports", f"--descriptor_set_out={image}", *ERRORS)
    described = FileDescriptorSet.FromString(image.read_bytes())
    for method in (method for file in described.file for service in file.service for method in service.method):
        method.options.Extensions[annotations_pb2.http].ClearField("response_body")  # pyright: ignore[reportArgumentType] # it knows no type of extensions
    image.write_bytes(described.SerializeToString())


def lint(protos: Path = PROTOS) -> int:
    """Lints the descriptors by the rules of buf.yaml; returns buf's exit status, 0 without faults."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "protos.binpb"
        describe(image, protos)
        command = (PROGRAMS / "buf", "lint", image, "--path", "aiomesh", "--config", ROOT / "buf.yaml")
        return subprocess.run(command, check=False).returncode


def compile_protos(protos: Path, pattern: str, *options: str) -> None:
    """Runs protoc with the plugins of this environment on the matching files; exits if it fails."""
    includes = [f"-I{folder}" for folder in (protos, *IMPORTED)]
    files = sorted(str(path.relative_to(protos)) for path in protos.rglob(pattern))
    if files and (status := protoc.main(["protoc", *includes, *PLUGINS, *options, *files])):
        sys.exit(status)


if __name__ == "__main__":
    main()
