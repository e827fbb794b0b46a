"""Makes `libs/aiomesh_protos` from `protos/`, and lints `protos/` with buf.

`python tools/protos.py generate` writes the code; `python tools/protos.py lint` lints. Both compile with
grpcio-tools, which carries protoc; googleapis-common-protos carries the imported google protos, so nothing is
fetched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.type import money_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = ROOT / "libs" / "aiomesh_protos" / "src"
INCLUDES = (
    f"-I{PROTOS}",
    f"-I{Path(money_pb2.__file__).parents[2]}",
    f"-I{Path(grpc_tools.__file__).with_name('_proto')}",
)


def main() -> None:
    """Runs the command named by the first argument."""
    commands = {"generate": lambda: generate(GENERATED), "lint": lint}
    commands[sys.argv[1]]()


def sources(pattern: str = "*.proto") -> list[str]:
    """The proto files, relative to `protos/`."""
    return sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob(pattern))


def generate(target: Path) -> None:
    """Writes messages, stubs and their types below `target`, in place of what is there."""
    shutil.rmtree(target / "aiomesh", ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    compile_protos(sources(), f"--python_out={target}", f"--mypy_out=quiet:{target}")
    services = sources("*_service.proto")
    compile_protos(services, f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}")
    (target / "aiomesh" / "py.typed").touch()


def compile_protos(protos: list[str], *options: str) -> None:
    """Runs protoc with the plugins of this environment; ends the program if it fails."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if status := protoc.main(["protoc", *INCLUDES, *options, *protos]):
        sys.exit(status)


def lint() -> None:
    """Lints the compiled descriptors by the rules of buf.yaml; ends with buf's status."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "protos.binpb"
        compile_protos(sources(), "--include_imports", "--include_source_info", f"--descriptor_set_out={image}")
        buf = Path(sys.executable).with_name("buf")
        sys.exit(
            subprocess.run(
                [buf, "lint", str(image), "--path", "aiomesh", "--config", str(ROOT / "buf.yaml")],
                check=False,
            ).returncode
        )


if __name__ == "__main__":
    main()
