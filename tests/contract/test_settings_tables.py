"""The table of settings in each README names the variables of the process and their defaults."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from localmesh.services import Service, read_services
from tests.repository import ROOT, SERVICES

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_settings import BaseSettings

READMES = {service: ROOT / "services" / service / "README.md" for service in SERVICES}
READMES["tracebox"] = ROOT / "tools" / "tracebox" / "README.md"


def table_of(text: str) -> dict[str, str]:
    """The rows "| `VARIABLE` | `default` | …" by variable; a default without backticks is none."""
    rows = re.findall(r"^\| *`([A-Z0-9_]+)` *\| *(?:`([^`]*)`)?[^|`]*\|", text, re.MULTILINE)
    return dict(rows)


def disagreements(text: str, settings: type[BaseSettings]) -> list[str]:
    """Where a README and a settings class differ."""
    prefix, documented = str(settings.model_config.get("env_prefix", "")), table_of(text)
    known = {f"{prefix}{name}".upper(): name for name in settings.model_fields}
    return [
        *(f"{name} is on one side only" for name in sorted(known.keys() ^ documented.keys())),
        *(
            f"{name} is not {default!r} by default"
            for name, default in documented.items()
            if name in known and not is_default(settings, known[name], default)
        ),
    ]


def is_default(settings: type[BaseSettings], name: str, text: str) -> bool:
    """Whether a variable of that text gives the value that the setting has without it."""
    try:
        given = settings.model_validate({name: text})
    except ValidationError:
        return False
    return bool(getattr(given, name) == settings.model_fields[name].default)


def settings_of(module: str) -> type[BaseSettings]:
    found: type[BaseSettings] = import_module(f"{module}.settings").Settings
    return found


@pytest.mark.parametrize(("module", "readme"), READMES.items(), ids=list(READMES))
def test_the_readme_names_the_settings_and_their_defaults(module: str, readme: Path) -> None:
    assert not disagreements(readme.read_text(), settings_of(module))


@pytest.mark.parametrize(
    ("old", "new", "disagreement"),
    [
        ("`PRICING_LOG_LEVEL`", "`PRICING_LEVEL`", "PRICING_LEVEL is on one side only"),
        ("`127.0.0.1:50052`", "`127.0.0.1:50051`", "PRICING_LISTEN is not '127.0.0.1:50051' by default"),
        ("| `5` |", "| `6` |", "PRICING_GRACE_SECONDS is not '6' by default"),
        ("| `native` |", "| |", "PRICING_TELEMETRY is not '' by default"),
    ],
)
def test_a_table_that_differs_is_refused(old: str, new: str, disagreement: str) -> None:
    text = READMES["pricing"].read_text()
    assert old in text
    assert disagreement in disagreements(text.replace(old, new), settings_of("pricing"))


@pytest.mark.parametrize("service", read_services(), ids=lambda service: service.name)
def test_the_defaults_of_addresses_are_the_declared_ports(service: Service) -> None:
    fields = settings_of(service.name).model_fields
    assert fields["listen"].default == f"127.0.0.1:{service.port}"
    called = {f"{other.prefix.lower()}target": other for other in read_services() if other.name in service.after}
    assert {name: field.default for name, field in fields.items() if name.endswith("_target")} == {
        name: f"127.0.0.1:{other.port}" for name, other in called.items()
    }
