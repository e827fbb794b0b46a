"""The cluster itself: made from deploy/kind/cluster.yaml, used again, deleted."""

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
API_LIMIT = 60.0  # seconds until the API of a node that was stopped answers
EDGE_NODE_PORT, TRACES_NODE_PORT = 30080, 30686


def ensure(settings: KindSettings, console: Console) -> None:
    """Makes the cluster, or uses the one there is; in both cases it is the current context of KUBECONFIG afterwards.

    Raises:
        CannotGoOn: a port is taken, the cluster has other ports, or kind failed.
    """
    if CLUSTER in run("kind", "get", "clusters").split():
        _use(settings)
        console.say(f"using the cluster {CLUSTER}")
    else:
        _create(settings)


def delete() -> None:
    """Deletes the cluster with all it holds, and its context; harmless if there is none."""
    show("kind", "delete", "cluster", f"--name={CLUSTER}")


def config(text: str, settings: KindSettings) -> str:
    """The configuration `text` of kind with the host ports of `settings`.

    Raises:
        ValueError: the text does not map the node ports of edge and traces, each once.
    """
    for node_port, port in host_ports(settings).items():
        text, count = re.subn(rf"(containerPort: {node_port}\n +hostPort: )\d+", rf"\g<1>{port}", text)
        if count != 1:
            raise ValueError(f"{CONFIG} maps the node port {node_port} {count} times")
    return text


def mapped(bindings: str) -> dict[int, int]:
    """The host port of each node port, from the JSON of a container's HostConfig.PortBindings."""
    found: dict[str, list[dict[str, str]]] = json.loads(bindings)
    return {int(port.partition("/")[0]): int(hosts[0]["HostPort"]) for port, hosts in found.items()}


def _create(settings: KindSettings) -> None:
    try:
        ports.require_free(settings.ports, "make kind-up")
    except ports.PortsTaken as taken:
        raise CannotGoOn(str(taken)) from None
    image = [f"--image={settings.kind_node_image}"] if settings.kind_node_image else []
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as effective:
        effective.write(config(CONFIG.read_text(), settings))
        effective.flush()
        show("kind", "create", "cluster", f"--name={CLUSTER}", f"--config={effective.name}", *image)


def _use(settings: KindSettings) -> None:
    have = mapped(run("docker", "inspect", NODE, "--format={{json .HostConfig.PortBindings}}"))
    edge, traces = (have.get(port) for port in host_ports(settings))
    if (edge, traces) != (settings.edge_port, settings.traces_port):
        raise CannotGoOn(
            f"the cluster {CLUSTER} has EDGE_PORT={edge} TRACES_PORT={traces}, and ports cannot be changed: "
            "use these, or delete it first with make kind-down"
        )
    run("docker", "start", NODE)  # after a restart of the engine it may be stopped; else this does nothing
    run("kind", "export", "kubeconfig", f"--name={CLUSTER}")
    _wait_for_api()


def _wait_for_api() -> None:
    give_up = time.monotonic() + API_LIMIT
    while True:
        try:
            kubectl("get", "--raw=/readyz")
        except CannotGoOn:
            if time.monotonic() > give_up:
                raise
            time.sleep(1)
        else:
            return


def host_ports(settings: KindSettings) -> dict[int, int]:
    """The port on this machine of each node port."""
    return {EDGE_NODE_PORT: settings.edge_port, TRACES_NODE_PORT: settings.traces_port}
