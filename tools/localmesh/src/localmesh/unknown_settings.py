"""Finds variables that look like settings of `make up` and are none: most are misspelt."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from localmesh.services import Service
    from localmesh.settings import Settings

ASSIGNMENT = re.compile(r"(?:^|(?<=[^\\]\s))(\w+)(?=[:?+!]*=)")
"""An assignment in MAKEFLAGS, in which GNU make escapes the spaces of values:
https://www.gnu.org/software/make/manual/html_node/Options_002fRecursion.html."""

OF_MAKE = {"ARGS", "DATABASE", "KIND_NODE_IMAGE", "NAME", "PYTHON"}
"""The variables of other targets of the Makefile."""

OF_OTHERS = ("OTEL_", "TRACEBOX_", "GRPC_", "PG", "PYTHON", "NO_", "HTTP_", "HTTPS_", "SSL_")
"""Prefixes of variables that the processes and their libraries read."""

SURE = 0.8
"""The similarity from which a variable of the environment is a misspelt setting: others belong to other programs."""


def warnings(
    services: Sequence[Service], settings: Settings, given: Collection[str], environ: Mapping[str, str]
) -> list[str]:
    """A line for each unknown variable, with the nearest setting and without the value, which may be a password.

    A service itself warns of variables with its prefix.

    Args:
        services: of the mesh.
        settings: of the mesh.
        given: the names of variables that are meant for `make up`. In `environ` only names count that are very
            similar to a setting.
        environ: the environment.
    """
    own = [name.upper() for name in type(settings).model_fields]
    prefixes = (*(service.prefix for service in services), *OF_OTHERS)
    unknown = [name for name in sorted({*given, *environ}) if name.upper() not in {*own, *OF_MAKE}]
    candidates = [name for name in unknown if not name.upper().startswith(prefixes)]
    return [
        f"{name} is not a setting and is ignored; {_advice(name, own)}"
        for name in candidates
        if name in given or _is_misspelt(name, own)
    ]


def of_make(environ: Mapping[str, str]) -> Iterator[str]:
    """The names of the variables on the command line of make, which it passes on in MAKEFLAGS."""
    yield from ASSIGNMENT.findall(environ.get("MAKEFLAGS", ""))


def _is_misspelt(name: str, own: Sequence[str]) -> bool:
    return any(near[0] == name[0] for near in get_close_matches(name, own, n=1, cutoff=SURE))


def _advice(name: str, own: Sequence[str]) -> str:
    nearest = get_close_matches(name.upper(), [*own, "PYTHON"], n=1)
    return f"did you mean {nearest[0]}?" if nearest else "`make help` lists the settings"
