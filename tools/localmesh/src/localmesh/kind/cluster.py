"""Creates the cluster from deploy/kind/cluster.yaml, reuses it, and deletes it."""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from localmesh import ports
from localmesh.kind.programs import CLUSTER, CannotGoOn, kubectl, run, show

if TYPE_CHECKING:
    from localmesh.console import Console
    from localmesh.kind.settings import KindSettings

CONFIG = Path("deploy/kind/cluster.yaml")
NODE = f"{CLUSTER}-control-plane"
API_LIMIT = 60.0  # seconds until the API of a restarted node responds
EDGE_NODE_PORT, EDGE_GRPC_NODE_PORT, TRACES_NODE_PORT = 30080, 30050, 30686


def ensure(settings: KindSettings, console: Console) -> None:
    """Creates the cluster or uses the existing one, and makes it the current context of KUBECONFIG.

    Raises:
        CannotGoOn: a port is in use, the cluster has other ports, or kind failed.
    """
    if CLUSTER in run("kind", "get", "clusters").split():
        _use(settings)
        console.say(f"using the cluster {CLUSTER}")
    else:
        _create(settings)


def delete() -> None:
    """Deletes the cluster and its context, if it exists."""
    show("kind", "delete", "cluster", f"--name={CLUSTER}")


def config(text: str, settings: KindSettings) -> str:
    """The configuration `text` of kind, with the host ports of `settings`.

    Raises:
        ValueError: the text does not map each node port exactly once.
    """
    for node_port, port in host_ports(settings).items():
        text, count = re.subn(rf"(containerPort: {node_port}\n +hostPort: )\d+", rf"\g<1>{port}", text)
        if count != 1:
            raise ValueError(f"{CONFIG} maps the node port {node_port} {count} times")
    return text


def read_host_ports(bindings: str) -> dict[int, int]:
    """The host port of each node port, from the JSON of a container's HostConfig.PortBindings."""
    found: dict[str, list[dict[str, str]]] = json.loads(bindings)
    return {int(port.partition("/")[0]): int(hosts[0]["HostPort"]) for port, hosts in found.items()}


def _create(settings: KindSettings) -> None:
    try:
        ports.require_free(settings.ports, "make kind-up")
    except ports.PortsTaken as error:
        raise CannotGoOn(str(error)) from None
    image = [f"--image={settings.kind_node_image}"] if settings.kind_node_image else []
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as effective:
        effective.write(config(CONFIG.read_text(), settings))
        effective.flush()
        show("kind", "create", "cluster", f"--name={CLUSTER}", f"--config={effective.name}", *image)


def _use(settings: KindSettings) -> None:
    have = read_host_ports(run("docker", "inspect", NODE, "--format={{json .HostConfig.PortBindings}}"))
    ports_of_cluster = {name: have.get(port) for name, port in zip(settings.ports, host_ports(settings), strict=True)}
    if ports_of_cluster != settings.ports:
        found = " ".join(f"{name}={port}" for name, port in ports_of_cluster.items())
        raise CannotGoOn(
            f"the cluster {CLUSTER} has {found}, which cannot be changed: "
            "use these ports, or delete the cluster with make kind-down"
        )
    run("docker", "start", NODE)  # it may be stopped after a restart of docker; otherwise this does nothing
    run("kind", "export", "kubeconfig", f"--name={CLUSTER}")
    _wait_for_api()


def _wait_for_api() -> None:
    deadline = time.monotonic() + API_LIMIT
    while True:
        try:
            kubectl("get", "--raw=/readyz")
        except CannotGoOn:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


def host_ports(settings: KindSettings) -> dict[int, int]:
    """The port on this machine of each node port."""
    return dict(zip((EDGE_NODE_PORT, EDGE_GRPC_NODE_PORT, TRACES_NODE_PORT), settings.ports.values(), strict=True))
