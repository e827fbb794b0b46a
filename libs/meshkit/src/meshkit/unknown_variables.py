"""Warns of environment variables that look like settings of this process and are none: most are misspelt."""

from __future__ import annotations

import logging
import os
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

log = logging.getLogger("meshkit.config")

MAKE_UP = ["PORT", "GRPC_PORT"]
"""The settings of `make up` that have the prefix of a service: they move its ports."""

SERVICE_LINK = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
    r"|(\w+_)?PORT(?==(tcp|udp|sctp)://)"
)
"""What Kubernetes sets for each Service of the namespace, unless `enableServiceLinks` is false:
https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables."""


def warn_of_unknown_variables(program: str, settings: type[BaseSettings]) -> None:
    """Logs a warning for each variable with the prefix of the settings that is not a setting, with the nearest one.

    The value is not logged: it may hold a password. `program` is the one whose `--help` lists the settings.
    """
    prefix = str(settings.model_config.get("env_prefix", "")).upper()
    known = [name.upper() for name in settings.model_fields]
    for variable, value in sorted(os.environ.items()):
        name = variable.upper().removeprefix(prefix)
        if variable.upper().startswith(prefix) and name not in {*known, *MAKE_UP} and not _is_service_link(name, value):
            advice = _advice(prefix, name, known) or f"`python -m {program} --help` lists the settings"
            log.warning("%s is not a setting and is ignored; %s", variable, advice)


def _is_service_link(name: str, value: str) -> bool:
    found = SERVICE_LINK.match(f"{name}={value}")
    return found is not None and found.end() == len(name)


def _advice(prefix: str, name: str, known: list[str]) -> str:
    nearest = get_close_matches(name, [*known, *MAKE_UP], n=1)
    owner = " of `make up`" if {*nearest} & {*MAKE_UP} else ""
    return f"did you mean {prefix}{nearest[0]}{owner}?" if nearest else ""
