"""A variable that looks like a setting of `make up` and is none is a warning."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from localmesh.services import read_services
from localmesh.settings import load
from localmesh.unknown_settings import of_make, warnings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

UNKNOWN = "is not a setting and is ignored;"


def found(given: Collection[str], environ: Mapping[str, str]) -> list[str]:
    services = read_services()
    return warnings(services, load(services), given, environ)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("RELAOD", "did you mean RELOAD?"),
        ("relaod", "did you mean RELOAD?"),
        ("WITHOT", "did you mean WITHOUT?"),
        ("TRACE_PORT", "did you mean TRACES_PORT?"),
        ("EGDE_PORT", "did you mean EDGE_PORT?"),
        ("PYTON", "did you mean PYTHON?"),
        ("VERBOSE", "`make help` lists the settings"),
    ],
)
def test_an_unknown_variable_given_to_make_up_is_a_warning_with_the_nearest_setting(name: str, advice: str) -> None:
    assert found({name}, {name: "s3cret"}) == [f"{name} {UNKNOWN} {advice}"]


@pytest.mark.unit
@pytest.mark.parametrize(
    "name",
    [
        "RELOAD",
        "edge_port",
        "EDGE_PRT",
        "PRICING_DATABASE_URL",
        "TRACEBOX_X",
        "OTEL_TRACES_SAMPLER",
        "GRPC_VERBOSITY",
        "no_proxy",
        "JAEGER_BIN",
        "PYTHON",
        "ARGS",
        "NAME",
    ],
)
def test_settings_and_the_variables_of_services_are_no_warning(name: str) -> None:
    assert found({name}, {name: "1"}) == []


@pytest.mark.unit
def test_of_the_environment_only_a_misspelt_setting_is_a_warning() -> None:
    others = dict.fromkeys(
        ("PATH", "HOME", "SHELL", "HTTP_PORT", "FTP_PORT", "PRELOAD", "STATE_DIRECTORY", "MAKEFLAGS", "JAEGER_URL"), "1"
    )
    assert found((), others | {"TRACE_PORT": "1"}) == [f"TRACE_PORT {UNKNOWN} did you mean TRACES_PORT?"]


def test_the_variables_on_the_command_line_of_make_are_known(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("up:\n\t@printenv MAKEFLAGS || true\n")
    variables = ("RELAOD=1", "EDGE_PORT:=8090", "ARGS=-k x=1 y=$$z", "EMPTY=")
    for options in ([], ["-j2", "-k"]):
        printed = subprocess.run(
            ["make", *options, "up", *variables],
            cwd=tmp_path,
            env=without_make(),
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert set(of_make({"MAKEFLAGS": printed.strip()})) == {"RELAOD", "EDGE_PORT", "ARGS", "EMPTY"}
    assert not list(of_make({}))


def without_make() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def test_make_up_warns_before_it_starts_anything(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WITHOT=pricing\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        given = {"MAKEFLAGS": " -- RELAOD=1", "RELAOD": "1", "EDGE_PORT": str(other.getsockname()[1])}
        environment = without_make() | {"STATE_DIR": str(tmp_path / "state")} | given
        command = [sys.executable, "-m", "localmesh"]
        printed = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        ).stdout
    assert printed.splitlines()[:2] == [
        f"RELAOD {UNKNOWN} did you mean RELOAD?",
        f"WITHOT {UNKNOWN} did you mean WITHOUT?",
    ]
    assert "is in use" in printed
