"""Reads a PostgreSQL URL as libpq does, and translates its parameters into those of asyncpg.

https://www.postgresql.org/docs/current/libpq-connect.html. A parameter that asyncpg does not have is either accepted,
because its value asks for what asyncpg does anyway, or it is an error. Errors name the parameter and never a value,
which may be a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlencode

from sqlalchemy import URL

from meshkit.database.tls import check_files, system_context

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIVER = "postgresql+asyncpg"
FORMS = "a database is sqlite:///file or postgresql://user:password@host:port/name?parameter=value"

# As libpq, a password may contain what ends a host, unless the text before it is a host and a port.
_URL = re.compile(
    r"(?i:postgres(?:ql)?)(?:\+\w+)?://"
    r"(?:(?P<user>[^:/?@\[\]]*)(?::(?P<password>[^@/?]*|(?!\d+[/,])[^@]*))?@)?"
    r"(?P<hosts>[^/?@]*)(?:/(?P<dbname>[^?]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_HOST = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<name>/.*|[^:\[\]]*))(?::(?P<port>\d*))?|(?P<bare>[0-9a-fA-F:.%]+)")

_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "gsslib": ("gssapi",),
    "keepalives": ("0", "1"),
    "pgbouncer": ("session", "transaction"),
    # What asyncpg does anyway.
    "channel_binding": ("disable", "prefer"),
    "client_encoding": ("UTF8", "auto"),
    "gssdelegation": ("0",),
    "gssencmode": ("disable", "prefer"),
    "load_balance_hosts": ("disable",),
    "max_protocol_version": ("3.0", "3.2", "latest"),
    "min_protocol_version": ("3.0",),
    "sslcertmode": ("allow",),
    "sslcompression": ("0", "1"),
    "sslsni": ("1",),
}
_NUMBERS = ("connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
_TEXTS = ("user", "password", "host", "port", "dbname", "application_name", "fallback_application_name", "options")
_FILES = ("passfile", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "krbsrvname")
_SUPPORTED = frozenset((*_CHOICES, *_NUMBERS, *_TEXTS, *_FILES))
_OF_ASYNCPG = (*_FILES, *list(_CHOICES)[:6])
"""The parameters that asyncpg reads from a URL itself."""


@dataclass(frozen=True)
class KeepAlive:
    """When the kernel ends a connection whose other end is silent.

    https://man7.org/linux/man-pages/man7/tcp.7.html
    """

    enabled: bool = True
    idle: int = 10
    """Seconds without data until the first probe."""
    interval: int = 3
    """Seconds between two probes."""
    count: int = 3
    """Probes without a response that end a connection."""
    user_timeout: int = 5000
    """Milliseconds that sent data may stay without acknowledgement."""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL database, on one host or on one of several."""

    url: URL
    """Its first host, for SQLAlchemy and for spans; without parameters."""
    hosts: tuple[tuple[str, int | None], ...]
    """Names, addresses or directories of sockets, with their ports; empty for the default of libpq."""
    arguments: Mapping[str, object]
    """Further arguments of `asyncpg.connect`."""
    keepalive: KeepAlive
    connect_timeout: float | None
    """Seconds."""
    transaction_pooling: bool
    """Whether a PgBouncer in transaction mode is in front, so each transaction may run in another session."""


def is_postgresql(url: str) -> bool:
    """Whether the URL has the scheme of PostgreSQL, with or without a driver of SQLAlchemy."""
    return re.match(r"postgres(ql)?(\+\w+)?:", url, re.IGNORECASE) is not None


def parse_server(url: str) -> Server:
    """The server of a URL with libpq's parameters, and with `pgbouncer`, which is ours.

    Raises:
        ValueError: the URL or a parameter is invalid or not supported. It names the parameter.
    """
    parts = _URL.fullmatch(url)
    if not parts:
        raise ValueError(f"{FORMS}, with the special characters of user, password and name %-encoded")
    given = {name: unquote(text) for name in ("user", "password", "dbname") if (text := parts[name])}
    parameters = given | _parameters(parts["query"] or "")
    if not parameters.get("dbname"):
        raise ValueError(FORMS)
    hosts = _hosts(parameters, parts["hosts"])
    return Server(
        _sqlalchemy_url(parameters, hosts),
        hosts,
        _arguments(parameters),
        _keepalive(parameters),
        max(0.0, float(parameters.get("connect_timeout", "0"))) or None,
        parameters.get("pgbouncer") == "transaction",
    )


def _parameters(query: str) -> dict[str, str]:
    """The parameters that have a value, checked. As in libpq the last of several counts, `+` is not a space."""
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, equals, value = (unquote(part) for part in pair.partition("="))
        name, value = _translate(name, value)
        _check(name, equals, value)
        if name == "host" and name in found:  # the form of SQLAlchemy
            value = f"{found[name]},{value}"
        found[name] = value
    return {name: value for name, value in found.items() if value}


def _translate(name: str, value: str) -> tuple[str, str]:
    """The spellings of JDBC, SQLAlchemy and Prisma."""
    match name, value:
        case "ssl", "true":
            return "sslmode", "require"
        case "ssl", _:
            return "sslmode", value
        case "database", _:
            return "dbname", value
        case "pgbouncer", "true":
            return name, "transaction"
        case "client_encoding", _ if value.lower().replace("-", "") == "utf8":
            return name, "UTF8"
    return name, value


def _check(name: str, equals: str, value: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise ValueError("has a parameter without a valid name")
    if name not in _SUPPORTED:
        raise ValueError(f"has the parameter {name}, which is not supported")
    if not equals:
        raise ValueError(f"has the parameter {name} without a value")
    if value and name in _CHOICES and value not in _CHOICES[name]:
        raise ValueError(f"{name} must be {' or '.join(_CHOICES[name])}")
    if value and name in _NUMBERS and not re.fullmatch(r"-?\d{1,9}", value, re.ASCII):
        raise ValueError(f"{name} must be an integer")


def _hosts(parameters: Mapping[str, str], authority: str) -> tuple[tuple[str, int | None], ...]:
    if "host" in parameters:
        hosts = [_host(text) for text in parameters["host"].split(",")]
    else:
        hosts = [_host(text, decode=True) for text in authority.split(",")]
    ports = [_port(text) for text in parameters["port"].split(",")] if "port" in parameters else [None]
    if len(ports) not in {1, len(hosts)}:
        raise ValueError(f"port must have one value or as many as there are hosts, {len(hosts)}")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    if hosts == [("", None)] and ports == [None]:
        return ()
    return tuple((name, port or own) for (name, own), port in zip(hosts, ports, strict=True))


def _host(text: str, *, decode: bool = False) -> tuple[str, int | None]:
    found = _HOST.fullmatch(text)
    if not found:
        raise ValueError("host must be a name, an address or a directory, and port a number from 1 to 65535")
    name = found["v6"] or found["name"] or found["bare"] or ""
    return (unquote(name) if decode else name), _port(found["port"])


def _port(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**16):
        raise ValueError("port must be a number from 1 to 65535")
    return int(text)


def _sqlalchemy_url(parameters: Mapping[str, str], hosts: tuple[tuple[str, int | None], ...]) -> URL:
    host, port = hosts[0] if hosts else (None, None)
    user, password = parameters.get("user"), parameters.get("password")
    return URL.create(DRIVER, user, password, host or None, port, parameters["dbname"])


def _arguments(parameters: Mapping[str, str]) -> dict[str, object]:
    settings = {"timezone": "UTC"}
    if name := parameters.get("application_name") or parameters.get("fallback_application_name"):
        settings["application_name"] = name
    if "options" in parameters:
        settings["options"] = parameters["options"]
    own = {name: parameters[name] for name in _OF_ASYNCPG if name in parameters}
    arguments: dict[str, object] = {
        "user": parameters.get("user"),
        "password": parameters.get("password"),
        "database": parameters["dbname"],
        "server_settings": settings,
    }
    if own.get("sslrootcert") == "system":
        arguments["ssl"] = system_context(own)
    else:
        check_files(own)
        # asyncpg takes files only from a URL, and reads them for each connection.
        arguments["dsn"] = f"postgresql:///?{urlencode(own, quote_via=quote)}"
    return arguments


def _keepalive(parameters: Mapping[str, str]) -> KeepAlive:
    def number(name: str, default: int) -> int:
        return max(0, int(parameters.get(name, "0"))) or default

    default = KeepAlive()
    return KeepAlive(
        parameters.get("keepalives") != "0",
        number("keepalives_idle", default.idle),
        number("keepalives_interval", default.interval),
        number("keepalives_count", default.count),
        number("tcp_user_timeout", default.user_timeout),
    )
