"""A service from `make new-service` works unchanged and passes the checks of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template

import pytest

from localmesh.services import Service, read_services
from tests.repository import ROOT
from tools.new_service import HINTS, fault_of, free_port, render, values_of
from tools.protos import generate, lint

PROGRAMS = Path(sys.executable).parent
SERVICES = (Service("tax", 50060, "grpc", database=False, after=()), Service("api_edge", 8080, "http", False, ("tax",)))


@pytest.fixture(params=[False, True], ids=["stateless", "database"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder that holds a new service, its generated code and the repository's settings of tools."""
    service = Service("gift_cards", 50099, "grpc", database=request.param, after=())
    render(service, values_of(service), tmp_path)
    generate(tmp_path / "generated", tmp_path / "protos")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def output_of(project: Path, *command: str | Path) -> str:
    """The output of a command that must succeed in the project."""
    path = os.pathsep.join([str(project / "services/gift_cards/src"), str(project / "generated")])
    ended = subprocess.run(
        command, cwd=project, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.timeout(120)
def test_a_new_service_passes_its_own_tests(project: Path) -> None:
    printed = output_of(project, sys.executable, "-m", "pytest", "-n0", "tests/gift_cards")
    assert "3 passed" in printed


def test_a_new_service_is_formatted_and_linted(project: Path) -> None:
    output_of(project, PROGRAMS / "ruff", "format", "--check", "services", "tests")
    unsorted = ("--extend-ignore", "I001")  # the order of imports depends on the name, so `make new-service` formats
    output_of(project, PROGRAMS / "ruff", "check", *unsorted, "services", "tests")
    assert lint(project / "protos") == 0


def test_a_new_service_declares_itself(project: Path) -> None:
    (service,) = read_services(project)
    assert (service.name, service.port, service.protocol) == ("gift_cards", 50099, "grpc")
    assert service.database == (project / "services/gift_cards/src/gift_cards/tables.py").exists()


def test_the_printed_hints_name_the_service() -> None:
    service = Service("gift_cards", 50099, "grpc", database=False, after=())
    hints = Template(HINTS).substitute(values_of(service))
    assert "EDGE_GIFT_CARDS_TARGET=dns:///gift-cards:50099" in hints
    assert "class GiftCardsClient:" in hints


def test_a_new_service_gets_the_port_after_the_highest() -> None:
    assert free_port(SERVICES) == 50061


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("gift_cards", ""),
        ("", "NAME must be a Python name in lower case"),
        ("Reviews", "NAME must be a Python name in lower case"),
        ("gift-cards", "NAME must be a Python name in lower case"),
        ("class", "NAME must be a Python name in lower case"),
        ("tax", "a service of this name exists"),
        ("email", "a module of this name exists"),
        ("meshkit", "a module of this name exists"),
        ("grpc", "a module of this name exists"),
        ("tests", "a module of this name exists"),
        ("gateway", "its settings would begin with GATEWAY_, as GATEWAY_PORT does"),
        ("gateway_tls", "its settings would begin with GATEWAY_TLS_, as GATEWAY_TLS_CERT does"),
        ("traces", "its settings would begin with TRACES_, as TRACES_PORT does"),
        ("kind", "its settings would begin with KIND_, as KIND_NODE_IMAGE does"),
        ("otel", "its settings would begin with OTEL_, as OTEL_SERVICE_NAME does"),
        ("edge", "its settings would begin with EDGE_, as EDGE_PORT does"),
        ("nginx", "GATEWAY=nginx is a program of this name"),
    ],
)
def test_an_invalid_service_name_is_rejected(name: str, fault: str) -> None:
    assert fault_of(name, SERVICES).startswith(fault)
    assert bool(fault_of(name, SERVICES)) == bool(fault)
