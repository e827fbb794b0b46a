"""Meshkit without extras imports no package of an extra, and a part without its extra names the extra to install.

Each case is a process in which the imports of those packages fail.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import meshkit
from meshkit.extras import MODULES

WINGS = {
    "meshkit.connect": "connect",
    "meshkit.database": "database",
    "meshkit.fastapi": "fastapi",
    "meshkit.http": "http",
    "meshkit.telemetry.prometheus": "prometheus",
}
"""The packages of meshkit that need an extra, and the extra. `contrib` is missing: it is for a setting."""

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
def test_a_part_without_its_extra_names_the_extra_to_install(program: str, extra: str, package: str) -> None:
    done = run(program, package)
    last_line = (done.stderr.splitlines() or [""])[-1]
    assert done.returncode != 0
    assert f"pip install 'meshkit[{extra}]'" in last_line
    assert package in last_line
