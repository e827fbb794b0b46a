"""Reads hash-pinned locks, and finds the requirements of a project, without an index."""

from __future__ import annotations

import itertools
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

PLATFORMS = (
    {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux"},
    {"sys_platform": "darwin", "os_name": "posix", "platform_system": "Darwin"},
    {"sys_platform": "win32", "os_name": "nt", "platform_system": "Windows"},
)
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ENVIRONMENTS = tuple(
    {
        **platform,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": "x86_64",
    }
    for platform, python in itertools.product(PLATFORMS, PYTHONS)
)
"""The environments that a universal lock must support: the variables of requirement markers (PEP 508)."""


@dataclass(frozen=True)
class Pin:
    """One entry of a lock: its requirement and its hashes, such as `sha256:…`."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The normalised name."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The version that it is pinned to by `==`; empty if it is not."""
        match list(self.requirement.specifier):
            case [pin] if pin.operator == "==" and "*" not in pin.version:
                return pin.version
        return ""


def read_lock(text: str) -> list[Pin]:
    """The entries of a lock.

    Raises:
        ValueError: a line is something else: an option, an address, an editable, a requirement without hashes.
    """
    return [_pin(line) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def _pin(line: str) -> Pin:
    text, *hashes = re.split(r"\s+--hash=", line.strip())
    pin = Pin(Requirement(text), tuple(hashes))
    if pin.requirement.url or not pin.version or not hashes:
        raise ValueError(f"not pinned by version and hash: {text}")
    if wrong := [hash_ for hash_ in hashes if not re.fullmatch("sha256:[0-9a-f]{64}", hash_)]:
        raise ValueError(f"not a sha256: {wrong[0]}")
    return pin


@cache
def members() -> Mapping[str, Path]:
    """The pyproject.toml of each workspace member by its name."""
    paths = [path for folder in ("libs", "services", "tools") for path in ROOT.glob(f"{folder}/*/pyproject.toml")]
    return {tomllib.loads(path.read_text())["project"]["name"]: path for path in paths}


def declared(pyproject: Path) -> list[Requirement]:
    """The requirements of a workspace project: to run, to build, of its extras and its dependency groups."""
    project = tomllib.loads(pyproject.read_text())
    extras = project["project"].get("optional-dependencies", {})
    texts = [
        *project["project"]["dependencies"],
        *project.get("build-system", {}).get("requires", []),
        *itertools.chain.from_iterable(project.get("dependency-groups", {}).values()),
        *(f'{text}; extra == "{extra}"' for extra, texts in extras.items() for text in texts),
    ]
    return [Requirement(text) for text in texts]


def needs(roots: Iterable[Requirement], environment: Mapping[str, str]) -> list[Requirement]:
    """All requirements of the roots in an environment, including the roots.

    A package that is not installed here, such as one for another platform, counts as one without requirements.
    """
    found: dict[str, Requirement] = {}
    waiting = [root for root in roots if applies(root, environment)]
    while waiting:
        requirement = waiting.pop()
        if found.setdefault(str(requirement), requirement) is requirement:
            extras = sorted(requirement.extras)
            waiting.extend(each for each in _requires(requirement.name) if applies(each, environment, *extras))
    return list(found.values())


def applies(requirement: Requirement, environment: Mapping[str, str], *extras: str) -> bool:
    """Whether the marker of a requirement or a pin is true in the environment or with one of the extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras))


@cache
def _requires(name: str) -> list[Requirement]:
    if pyproject := members().get(canonicalize_name(name)):
        return declared(pyproject)
    try:
        return [Requirement(text) for text in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:
        return []


def complaints(lock: Iterable[Pin], roots: Iterable[Requirement], environment: Mapping[str, str]) -> list[str]:
    """Describes the requirements that the lock does not satisfy, and the packages that nothing requires."""
    given = {pin.name: pin for pin in lock if applies(pin.requirement, environment)}
    needed = [need for need in needs(roots, environment) if canonicalize_name(need.name) not in members()]
    beyond = given.keys() - {canonicalize_name(need.name) for need in needed}
    unmet = [need for need in needed if not _meets(given.get(canonicalize_name(need.name)), need)]
    return [*(f"nothing needs {name}" for name in sorted(beyond)), *(f"nothing gives {need}" for need in unmet)]


def _meets(pin: Pin | None, need: Requirement) -> bool:
    return pin is not None and need.specifier.contains(pin.version, prereleases=True)
