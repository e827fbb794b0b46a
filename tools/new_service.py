"""Adds a gRPC service to the mesh: `make new-service NAME=reviews`; with `DATABASE=yes` it owns a database.

It renders `tools/service_template/`, then generates, locks, installs and formats, as `make` does. The new service runs,
is tested and is deployed like the others. Finally it prints how an edge can call it.
"""

from __future__ import annotations

import argparse
import keyword
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from string import Template

from localmesh.gateways.known import GATEWAYS
from localmesh.kind.settings import KindSettings
from localmesh.services import Service, read_services
from localmesh.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "tools" / "service_template"
SUFFIX = ".in"
FIRST_PORT = 50051
STEPS = (
    ("lock",),
    ("install",),
    ("generate",),
    ("format",),
)
"""The targets of the Makefile that complete a service from its sources."""

SETTINGS = (*(name.upper() for name in Settings.model_fields | KindSettings.model_fields), "OTEL_SERVICE_NAME")
"""Variables that are no service's."""

HINTS = (TEMPLATE / "hints.txt").read_text(encoding="utf-8")


def main() -> None:
    """Adds the service named on the command line."""
    parser = argparse.ArgumentParser(prog="make new-service", description=__doc__)
    parser.add_argument("name", help="a Python name in lower case, such as reviews or gift_cards")
    parser.add_argument("--database", action="store_true", help="the service owns a database")
    arguments = parser.parse_args()
    services = read_services()
    if fault := fault_of(arguments.name, services):
        sys.exit(f"make new-service NAME={arguments.name}: {fault}")
    service = Service(arguments.name, free_port(services), "grpc", database=arguments.database, after=())
    values = values_of(service)
    for path in render(service, values, ROOT):
        print(f"wrote {path.relative_to(ROOT)}")
    for step in STEPS:
        run("make", "--no-print-directory", *step)
    print(Template(HINTS).substitute(values))


def fault_of(name: str, services: tuple[Service, ...]) -> str:
    """Why this name is invalid, or an empty text."""
    if not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        return "NAME must be a Python name in lower case, such as reviews or gift_cards"
    if name in {service.name for service in services} or (ROOT / "services" / name).exists():
        return f"a service of this name exists: services/{name}"
    if name in sys.stdlib_module_names or find_spec(name):
        return "a module of this name exists; choose another name"
    if name in GATEWAYS:
        return f"GATEWAY={name} is a program of this name; choose another name"
    prefix = f"{name.upper()}_"
    if taken := next((variable for variable in SETTINGS if variable.startswith(prefix)), ""):
        return f"its settings would begin with {prefix}, as {taken} does; choose another name"
    return ""


def free_port(services: tuple[Service, ...]) -> int:
    """The port after the highest one of the gRPC services."""
    return max((service.port + 1 for service in services if service.protocol == "grpc"), default=FIRST_PORT)


def values_of(service: Service) -> dict[str, str]:
    """The values of the template's placeholders."""
    title = service.name.title().replace("_", "")
    unavailable = "UNAVAILABLE (DATABASE_UNAVAILABLE) and DEADLINE_EXCEEDED"
    with_file = "Settings(database_url=f\"sqlite:///{tmp_path / 'test.db'}\")"
    return {
        "name": service.name,
        "Name": title,
        "NAME": service.name.upper(),
        "workload": service.workload,
        "port": str(service.port),
        "failures": unavailable if service.database else "DEADLINE_EXCEEDED",
        "test_settings": with_file if service.database else "Settings()",
    }


def render(service: Service, values: dict[str, str], root: Path) -> list[Path]:
    """Writes the files of a service below `root` and returns their paths."""
    written = []
    for folder in ("common", "database" if service.database else "stateless"):
        for source in sorted((TEMPLATE / folder).rglob(f"*{SUFFIX}")):
            relative = str(source.relative_to(TEMPLATE / folder)).removesuffix(SUFFIX)
            target = root / relative.replace("NAME", service.name).replace("WORKLOAD", service.workload)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(source.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
            written.append(target)
    return written


def run(*command: str) -> None:
    """Runs a command in the repository; exits with its status if it fails."""
    if status := subprocess.run(command, check=False, cwd=ROOT).returncode:
        sys.exit(f"{' '.join(command)} failed with status {status}; the new files stay: correct them and run it again")


if __name__ == "__main__":
    main()
