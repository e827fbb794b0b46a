"""The gateway of a mesh on this machine: its process, its addresses, and what has to be done before it starts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from localmesh.gateways import certificate, install
from localmesh.gateways.gateway import Addresses
from localmesh.gateways.known import GATEWAYS
from localmesh.probe import HOST, all_of, responds, serves_through
from localmesh.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from localmesh.gateways.gateway import Gateway
    from localmesh.probe import Probe
    from localmesh.services import Service
    from localmesh.settings import Settings

FOLDER, TLS = "gateway", "gateway-tls"
"""The folders of the configuration and of the certificate in the state directory."""


def program(settings: Settings, edge: Service, inherited: Mapping[str, str], edge_is_ready: Probe) -> Program:
    """The process of the gateway. It is ready after the edge, when that answers REST and gRPC through it."""
    gateway, addresses = GATEWAYS[settings.gateway], _addresses(settings, edge)
    folder, host, port = settings.state_dir / FOLDER, (*settings.gateway_hosts, HOST)[0], addresses.port
    return Program(
        gateway.name,
        gateway.command(folder, addresses),
        {**inherited, **gateway.environment(folder, addresses)},
        f"https://{host}:{port}",
        all_of(edge_is_ready, responds(port, "/readyz", tls=True, host=host), serves_through(port, host)),
        stop_signal=gateway.stop_signal,
        drain=partial(gateway.drain, folder),
    )


def preparation(settings: Settings, edge: Service) -> Callable[[Callable[[str], None]], None]:
    """Installs the program, makes a certificate and writes the addresses; takes what reports a long installation."""
    return partial(_prepare, GATEWAYS[settings.gateway], settings, _addresses(settings, edge))


def _prepare(gateway: Gateway, settings: Settings, addresses: Addresses, report: Callable[[str], None]) -> None:
    install.install(gateway, gateway.installed, report)
    if not settings.gateway_tls_cert:
        certificate.make(settings.state_dir / TLS, *settings.gateway_hosts)
    install.write(gateway, addresses, settings.state_dir / FOLDER)


def _addresses(settings: Settings, edge: Service) -> Addresses:
    own = settings.state_dir / TLS
    return Addresses(
        f"{HOST}:{settings.gateway_port}",
        (f"{HOST}:{settings.port_of(edge)}",),
        (settings.grpc_address_of(edge),),
        settings.gateway_tls_cert or own / certificate.CERT,
        settings.gateway_tls_key or own / certificate.KEY,
        f"{HOST}:{settings.otlp_port}",
        settings.gateway_hosts,
    )
