"""Checks the TLS parameters of a PostgreSQL URL before the first connection, which asyncpg reads anew for each one."""

from __future__ import annotations

import os
import ssl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def check_files(parameters: Mapping[str, str]) -> None:
    """Loads the files that the parameters name.

    Raises:
        ValueError: a file cannot be loaded, or `sslmode` needs authorities. It names the parameter.
    """
    mode = parameters.get("sslmode") or os.environ.get("PGSSLMODE")
    if mode == "disable":
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("sslrootcert", "sslcrl"):
        if name in parameters:
            _load(name, partial(context.load_verify_locations, parameters[name]))
    _load_identity(context, parameters)
    if parameters.get("sslnegotiation") == "direct" and mode not in {"require", "verify-ca", "verify-full"}:
        raise ValueError("sslnegotiation=direct needs sslmode=require, verify-ca or verify-full")
    if mode in {"verify-ca", "verify-full"} and not _has_authorities(parameters):
        raise ValueError(f"sslmode={mode} needs sslrootcert: a file of certificates, or system")


def system_context(parameters: Mapping[str, str]) -> ssl.SSLContext:
    """A context that trusts the authorities of the operating system, as `sslrootcert=system`.

    Raises:
        ValueError: another parameter contradicts it.
    """
    mode = parameters.get("sslmode") or os.environ.get("PGSSLMODE") or "verify-full"
    if mode != "verify-full":
        raise ValueError("sslrootcert=system needs sslmode=verify-full")
    for name in ("sslnegotiation", "sslcrl", "ssl_min_protocol_version", "ssl_max_protocol_version"):
        if name in parameters:
            raise ValueError(f"{name} is not supported with sslrootcert=system")
    context = ssl.create_default_context()
    context.set_alpn_protocols(["postgresql"])
    _load_identity(context, parameters)
    return context


def _load_identity(context: ssl.SSLContext, parameters: Mapping[str, str]) -> None:
    if "sslcert" in parameters:
        certificate, key = parameters["sslcert"], parameters.get("sslkey")
        password = parameters.get("sslpassword", "")
        _load("sslcert or sslkey", lambda: context.load_cert_chain(certificate, key, lambda: password))


def _load(name: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ValueError(f"{name} cannot be loaded: {reason or 'the file is invalid'}") from None


def _has_authorities(parameters: Mapping[str, str]) -> bool:
    if "sslrootcert" in parameters or os.environ.get("PGSSLROOTCERT"):
        return True
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(Path.home() / ".postgresql" / "root.crt")
    except (OSError, RuntimeError):
        return False
    return True
