"""The locks contain only names, versions, markers and hashes, of exactly the needed packages. Uses no index."""

from __future__ import annotations

import json
import tomllib
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.contract.locks import ENVIRONMENTS, Pin, applies, complaints, declared, members, read_lock
from tests.repository import ROOT, SERVICES
from tools.lock import copied_projects, pins

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = ROOT / "requirements.lock"
OF_SERVICE = {ROOT / "services" / service / "requirements.lock": service for service in SERVICES}
HASH = f"--hash=sha256:{'0' * 64}"
HERE = ENVIRONMENTS[0]

each_lock = pytest.mark.parametrize("path", [WHOLE, *OF_SERVICE], ids=["whole", *SERVICES])


def requirements_for(path: Path) -> list[Requirement]:
    """The projects installed from a lock: all, or one service."""
    if path == WHOLE:
        return [need for project in (ROOT / "pyproject.toml", *members().values()) for need in declared(project)]
    return [Requirement(OF_SERVICE[path])]


@each_lock
def test_a_lock_contains_only_pinned_and_hashed_third_party_packages(path: Path) -> None:
    names = {pin.name for pin in read_lock(path.read_text())}
    assert names
    assert not names & members().keys()


@each_lock
def test_a_lock_contains_exactly_the_needed_packages_on_every_platform(path: Path) -> None:
    lock, needed = read_lock(path.read_text()), requirements_for(path)
    found = {complaint for environment in ENVIRONMENTS for complaint in complaints(lock, needed, environment)}
    assert not found, f"{sorted(found)}: run `make lock`"


@pytest.mark.parametrize("path", OF_SERVICE, ids=SERVICES)
def test_the_lock_of_a_service_is_a_subset_of_the_root_lock(path: Path) -> None:
    whole = {(pin.name, pin.version, pin.hashes) for pin in read_lock(WHOLE.read_text())}
    assert {(pin.name, pin.version, pin.hashes) for pin in read_lock(path.read_text())} <= whole


def test_the_installed_packages_are_the_locked_ones() -> None:
    """Otherwise the tests would read the requirements of other versions than the locked ones."""
    installed = {canonicalize_name(found.name): found.version for found in metadata.distributions()}
    locked = {pin.name: pin.version for pin in read_lock(WHOLE.read_text())}
    assert {name: version for name, version in installed.items() if name in locked}.items() <= locked.items()


@pytest.mark.parametrize(
    "line",
    [
        f"grpcio>=1.82 {HASH}",
        f"grpcio==1.82.* {HASH}",
        f"grpcio==1.82.3,!=1.82.4 {HASH}",
        f"grpcio {HASH}",
        f"grpcio===1.82.3 {HASH}",
        "grpcio==1.82.3",
        "grpcio==1.82.3 --hash=md5:00",
        f"grpcio==1.82.3 {HASH}0",
        f"grpcio @ https://index.example/grpcio-1.82.3.whl {HASH}",
        "--index-url https://index.example/simple",
        f"-i https://index.example/simple {HASH}",
        "-e ./libs/meshkit",
        "./libs/meshkit",
        "# from an index",
    ],
)
def test_a_line_that_is_not_pinned_and_hashed_is_rejected(line: str) -> None:
    with pytest.raises(ValueError, match=r"not|[Ee]xpected"):
        read_lock(f"anyio==4.0 {HASH}\n{line}\n")


def test_an_entry_may_have_a_marker_and_several_hashes_on_separate_lines() -> None:
    (pin,) = read_lock(f"uvloop==0.23.0 ; sys_platform != 'win32' \\\n    {HASH} \\\n    {HASH}\n")
    assert (pin.name, pin.version, len(pin.hashes)) == ("uvloop", "0.23.0", 2)
    assert [applies(pin.requirement, {"sys_platform": platform}) for platform in ("linux", "win32")] == [True, False]


def lock_of(*requirements: str) -> list[Pin]:
    return read_lock("\n".join(f"{requirement} {HASH}" for requirement in requirements))


def test_a_lock_without_a_transitive_package_is_rejected() -> None:
    lock = [pin for pin in read_lock(WHOLE.read_text()) if pin.name != "greenlet"]  # by sqlalchemy[asyncio]
    assert any("nothing gives greenlet" in found for found in complaints(lock, requirements_for(WHOLE), HERE))


def test_a_lock_with_a_version_out_of_range_is_rejected() -> None:
    wanted = [Requirement("iniconfig>=2")]
    assert complaints(lock_of("iniconfig==1.9"), wanted, HERE) == ["nothing gives iniconfig>=2"]
    assert not complaints(lock_of("iniconfig==2.1"), wanted, HERE)


def test_a_lock_with_an_unneeded_package_is_rejected() -> None:
    assert complaints(lock_of("iniconfig==2.1", "colorama==0.4"), [Requirement("iniconfig")], HERE) == [
        "nothing needs colorama"
    ]


def test_a_lock_with_a_marker_that_excludes_a_platform_is_rejected() -> None:
    lock, wanted = lock_of("iniconfig==2.1 ; sys_platform == 'win32'"), [Requirement("iniconfig")]
    assert {each["sys_platform"] for each in ENVIRONMENTS if complaints(lock, wanted, each)} == {"linux", "darwin"}


def test_the_pins_of_a_lock_are_the_constraints_of_the_next_one(tmp_path: Path) -> None:
    constraints = pins(WHOLE.read_text())
    assert {str(Requirement(text)) for text in constraints} == {
        str(pin.requirement) for pin in read_lock(WHOLE.read_text())
    }
    root = tomllib.loads((copied_projects(tmp_path, constraints) / "pyproject.toml").read_text())
    assert root["tool"]["uv"]["constraint-dependencies"] == constraints
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.toml")} == {
        path.relative_to(ROOT) for path in (ROOT / "pyproject.toml", *members().values())
    }


def test_the_lock_of_npm_has_names_versions_and_hashes_but_no_addresses() -> None:
    lock = (ROOT / "tests" / "clients" / "package-lock.json").read_text()
    assert "://" not in lock
    packages = {path: package for path, package in json.loads(lock)["packages"].items() if path}
    assert packages
    assert all(package["version"] and package["integrity"] for package in packages.values())
