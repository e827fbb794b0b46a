"""A bare meshkit imports no package of an extra, and a part whose extra is missing says which one to install.

Each case is a process that has none of those packages: what it would import from them is missing.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import meshkit
from meshkit.extras import MODULES

WINGS = {"meshkit.database": "database", "meshkit.fastapi": "fastapi", "meshkit.telemetry.prometheus": "prometheus"}
"""The parts of meshkit that an extra is for, by their names; `contrib` is for no module but a setting."""

BARE = [
    name
    for _, name, _ in pkgutil.walk_packages(meshkit.__path__, "meshkit.")
    if not any(f"{name}.".startswith(f"{wing}.") for wing in WINGS)
]

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if any(f"{name}.".startswith(f"{gone}.") for gone in GONE):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

GONE = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Missing())
"""


def run(program: str, *gone: str) -> subprocess.CompletedProcess[str]:
    """Runs a program that cannot import some packages."""
    command = [sys.executable, "-c", f"{WITHOUT}\n{program}", ",".join(gone)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_a_bare_meshkit_imports_nothing_of_an_extra() -> None:
    every = [package for packages in MODULES.values() for package in packages]
    done = run("\n".join(f"import {name}" for name in BARE), *every)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("program", "extra", "package"),
    [
        *((f"import {wing}", extra, package) for wing, extra in WINGS.items() for package in MODULES[extra][::3]),
        ("import meshkit.fastapi.budget", "fastapi", "fastapi"),
        ("import meshkit.database.columns", "database", "sqlalchemy"),
        (
            "from meshkit.telemetry import configure; configure('shop', prometheus=True)",
            "prometheus",
            "prometheus_client",
        ),
        (
            "from meshkit.telemetry import configure; configure('shop', instrumentation='contrib')",
            "contrib",
            "opentelemetry.instrumentation.grpc",
        ),
    ],
)
def test_what_lacks_its_extra_says_which_one_to_install(program: str, extra: str, package: str) -> None:
    done = run(program, package)
    last_line = (done.stderr.splitlines() or [""])[-1]
    assert done.returncode != 0
    assert f"pip install 'meshkit[{extra}]'" in last_line
    assert package in last_line
