"""Connect's conformance suite calls our servers in each protocol. The cases that fail are known, each with its reason.

https://github.com/connectrpc/conformance: a program that Go builds has the cases, and its module has the protos.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.repository import ROOT
from tools.protos import compile_protos

PROGRAM = shutil.which("connectconformance")
DOCUMENT = ROOT / "docs" / "grpc-and-fastapi.md"

pytestmark = [
    pytest.mark.go,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not (PROGRAM and shutil.which("go")), reason="needs Go, and connectconformance, which it builds"
    ),
]

DETAILS = ["Basic/**/unimplemented"]
"""Every error of ours has an ErrorInfo (docs/errors.md), and the suite wants no details.

https://github.com/connectrpc/conformance/blob/v1.0.7/internal/app/connectconformance/testsuites/data/basic.yaml
"""

REFUSALS = ["Unexpected Requests/**/unexpected-content-type"]
CONNECT_REFUSALS = ["Connect Unexpected Requests/**/unexpected-codec", "Connect Unexpected Requests/**/unexpected-verb"]
"""Our 405 and 415 have an error in their body, which a client of Connect prefers to what the status stands for.

The suite wants only the status. https://connectrpc.com/docs/protocol#unary-response
"""

CORE = [
    "Unexpected Requests/**/unexpected-content-type",
    "gRPC Unexpected Requests/**/unexpected-codec",
    "gRPC Unexpected Requests/**/unexpected-compressed-message",
    "gRPC Unexpected Requests/**/unary/multiple-requests",
]
"""gRPC's core resets a stream of another content type, and ignores some faults: another codec, a second message, and
the mark of a compressed message without an encoding. https://github.com/grpc/grpc/issues/36770
"""

CORE_CONNECTION = ["gRPC Unexpected Requests/**/unexpected-compression"]
"""gRPC's core resets the stream, and later ones of the connection whose encoding it supports. See the same issue."""


@dataclass(frozen=True)
class Suite:
    """The cases of a protocol, by the suite's name of it and of the version of HTTP."""

    protocol: str
    version: str
    codecs: list[str]
    known: list[str]
    skipped: list[str]

    @property
    def options(self) -> list[str]:
        """Those of the program."""
        known = [option for pattern in self.known for option in ("--known-failing", pattern)]
        return [*known, *(option for pattern in self.skipped for option in ("--skip", pattern))]

    def config(self) -> str:
        """Its configuration, in JSON, which is YAML, too: methods with one request and one response."""
        features: dict[str, Any] = {
            "protocols": [self.protocol],
            "versions": [self.version],
            "codecs": self.codecs,
            "compressions": ["COMPRESSION_IDENTITY", "COMPRESSION_GZIP"],
            "streamTypes": ["STREAM_TYPE_UNARY"],
            "supportsTls": False,
            "supportsH2c": self.version == "HTTP_VERSION_2",
        }
        return json.dumps({"features": features})


PROTO, JSON = "CODEC_PROTO", "CODEC_JSON"
SUITES = {
    "Connect": Suite("PROTOCOL_CONNECT", "HTTP_VERSION_1", [PROTO, JSON], [*DETAILS, *REFUSALS, *CONNECT_REFUSALS], []),
    "gRPC-Web": Suite("PROTOCOL_GRPC_WEB", "HTTP_VERSION_1", [PROTO, JSON], [*DETAILS, *REFUSALS], []),
    "gRPC": Suite(
        "PROTOCOL_GRPC",
        "HTTP_VERSION_2",
        [PROTO],
        [*DETAILS, "gRPC Unexpected Requests/**/unary/no-request", *CORE],
        CORE_CONNECTION,
    ),
}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the protos in the module of the program."""
    built = subprocess.run(["go", "version", "-m", str(PROGRAM)], check=True, capture_output=True, text=True).stdout
    found = re.search(r"^\s+mod\s+(\S+)\s+(\S+)", built, re.MULTILINE)
    assert found, built
    download = ["go", "mod", "download", "-json", "@".join(found.groups())]
    module = json.loads(subprocess.run(download, check=True, capture_output=True).stdout)
    folder = tmp_path_factory.mktemp("generated")
    plugins = ("--python_out=", "--grpc_python_out=", "--connectrpc_out=protobuf=google,io=async:")
    compile_protos(Path(module["Dir"], "proto"), "*.proto", *(f"{plugin}{folder}" for plugin in plugins))
    return folder


@pytest.mark.parametrize("protocol", SUITES)
async def test_the_suite_finds_no_unknown_failure(generated: Path, tmp_path: Path, protocol: str) -> None:
    """It also fails if a case that is known to fail passes, or if the document counts other numbers."""
    suite, config = SUITES[protocol], tmp_path / "config.yaml"
    config.write_text(suite.config())
    options = ("--mode", "server", "--conf", str(config), "-p", "4", *suite.options)
    server = (sys.executable, "-m", "tests.clients.conformance_server", str(generated))
    running = await asyncio.create_subprocess_exec(
        str(PROGRAM), *options, "--", *server, stdout=PIPE, stderr=STDOUT, cwd=ROOT
    )
    printed = (await running.communicate())[0].decode()
    assert running.returncode == 0, printed
    passed, known = re.findall(r"(\d+) passed|Another (\d+) failed as expected", printed)
    assert f"\n| {protocol} | {passed[0]} | {known[1]} |" in DOCUMENT.read_text(), printed
