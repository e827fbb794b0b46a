"""Who may talk to whom, what a pod may do, and which database lets whom in: seen from inside."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cluster.cluster_mesh import NAMESPACE, SERVICES, KubectlFailed, Process, kubectl, objects, pods, processes
from tests.e2e.local_mesh import call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.cluster_mesh import ClusterMesh

IMAGE = "aiomesh/api-edge:dev"
ELSEWHERE = "aiomesh-strangers"
STRAY = "stray"
WORKLOADS = (*SERVICES, "jaeger", "postgres")
OPEN_PORTS = {"inventory": 50051, "pricing": 50052, "postgres": 5432, "jaeger": 4317}

pytestmark = pytest.mark.timeout(120)

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}

DIAL = """
import socket, sys
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        print(target, "reached")
    except socket.gaierror:
        print(target, "unknown")
    except OSError:
        print(target, "refused")
"""
"""Run in a pod: whether each host:port can be reached, cannot, or has no address."""


def pod(name: str, **security: object) -> str:
    """A pod that does nothing."""
    container = {"name": "python", "image": IMAGE, "command": ["python", "-c", "import signal; signal.pause()"]}
    spec = {"containers": [{**container, "securityContext": RESTRICTED | security}], "terminationGracePeriodSeconds": 0}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


@contextmanager
def stray(namespace: str) -> Iterator[None]:
    """A pod that belongs to nobody."""
    kubectl("apply", "--filename=-", given=pod(STRAY), namespace=namespace)
    try:
        kubectl("wait", f"pod/{STRAY}", "--for=condition=Ready", "--timeout=60s", namespace=namespace)
        yield
    finally:
        kubectl("delete", "pod", STRAY, "--wait=true", namespace=namespace)


def dialled(name: str, targets: list[str], namespace: str = NAMESPACE) -> dict[str, str]:
    """What a pod finds at each host:port."""
    said = kubectl("exec", name, "--", "python", "-c", DIAL, *targets, namespace=namespace)
    return dict(line.rsplit(" ", 1) for line in said.splitlines())


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A namespace of strangers."""
    kubectl("create", "namespace", ELSEWHERE)
    try:
        yield ELSEWHERE
    finally:
        kubectl("delete", "namespace", ELSEWHERE, "--wait=true")


def test_a_stray_pod_in_the_namespace_reaches_names_and_nothing_else() -> None:
    with stray(NAMESPACE):
        targets = [f"{name}:{port}" for name, port in OPEN_PORTS.items()]
        found = dialled(STRAY, ["kube-dns.kube-system:53", *targets, "api-edge:80"])
    assert found.pop("kube-dns.kube-system:53") == "reached"
    assert set(found.values()) == {"refused"}, found


def test_a_stray_pod_of_another_namespace_reaches_the_edge_alone(elsewhere: str) -> None:
    with stray(elsewhere):
        targets = [f"{name}.{NAMESPACE}:{port}" for name, port in OPEN_PORTS.items()]
        found = dialled(STRAY, ["kube-dns.kube-system:53", f"api-edge.{NAMESPACE}:80", *targets], elsewhere)
    assert found.pop("kube-dns.kube-system:53") == found.pop(f"api-edge.{NAMESPACE}:80") == "reached"
    assert set(found.values()) == {"refused"}, found


async def test_the_edge_reaches_its_backends_and_the_traces_but_no_database(mesh: ClusterMesh) -> None:
    found = dialled(pods("api-edge")[0].name, [f"{name}:{port}" for name, port in OPEN_PORTS.items()])
    assert found.pop("postgres:5432") == "refused"
    assert set(found.values()) == {"reached"}, found
    assert (await call(mesh, "GET", "/v1/products/TEA-0001?strict=true")).status == 200


def test_pod_security_refuses_a_privileged_pod() -> None:
    with pytest.raises(KubectlFailed, match='violates PodSecurity "restricted'):
        kubectl("create", "--filename=-", given=pod("privileged", privileged=True, allowPrivilegeEscalation=True))


@pytest.mark.parametrize("app", WORKLOADS)
def test_every_process_runs_with_the_least_of_privileges(app: str) -> None:
    uid = "999" if app == "postgres" else "10001"
    for one in pods(app):
        found = processes(one)
        assert found, one
        for process in found:
            status = dict(line.split(":\t", 1) for line in process.read("status").splitlines() if ":\t" in line)
            assert set(status["Uid"].split()) == set(status["Gid"].split()) == {uid}
            for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[capabilities], 16) == 0, capabilities
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert_sealed(found[0])


def assert_sealed(process: Process) -> None:
    """The root filesystem is read-only, and no token of a service account is mounted."""
    mounts = {line.split()[4]: line.split()[5].split(",") for line in process.read("mountinfo").splitlines()}
    assert "ro" in mounts["/"]
    assert not [path for path in mounts if "serviceaccount" in path]


ROLE = """
import asyncio, asyncpg, sys
user, password, database, *addresses = sys.argv[1:]
async def main():
    for address in addresses:
        try:
            login = await asyncpg.connect(host=address, user=user, password=password, database=database, timeout=5)
            await login.close()
            print(address, "let in")
        except (asyncpg.InvalidPasswordError, asyncpg.InsufficientPrivilegeError) as error:
            print(address, type(error).__name__)
asyncio.run(main())
"""
"""Run in a backend's pod: what each address of PostgreSQL says to a login."""


def login(service: str, database: str, password: str) -> set[str]:
    """What PostgreSQL says to a service's role, by its name and by its pod's address."""
    address = objects("pods", "--selector=app.kubernetes.io/name=postgres")[0]["status"]["podIP"]
    name = pods(service)[0].name
    said = kubectl("exec", name, "--", "/venv/bin/python", "-c", ROLE, service, password, database, "postgres", address)
    verdicts = dict(line.split(" ", 1) for line in said.splitlines())
    assert set(verdicts) == {"postgres", address}
    return set(verdicts.values())


def password_of(service: str) -> str:
    """The password in the service's Secret."""
    name = pods(service)[0].name
    return kubectl("exec", name, "--", "printenv", "PGPASSWORD").strip()


@pytest.mark.parametrize(("service", "other"), [("inventory", "pricing"), ("pricing", "inventory")])
def test_a_role_is_let_into_its_own_database_with_its_own_password_alone(service: str, other: str) -> None:
    password = password_of(service)
    assert login(service, service, password) == {"let in"}
    assert login(service, other, password) == {"InsufficientPrivilegeError"}
    assert login(service, "postgres", password) == {"InsufficientPrivilegeError"}
    assert login(service, service, password + "x") == {"InvalidPasswordError"}
    assert login(other, service, password + "x") == {"InvalidPasswordError"}


def test_postgres_asks_its_own_pod_for_a_password_too() -> None:
    """Initdb trusts local connections unless it is told otherwise."""
    with pytest.raises(KubectlFailed, match="password authentication failed"):
        kubectl(
            "exec", "postgres-0", "--", "env", "PGPASSWORD=wrong",
            "psql", "--host=127.0.0.1", "--username=inventory", "--dbname=inventory", "--command=SELECT 1",
        )  # fmt: skip
