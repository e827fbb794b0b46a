"""Network policies, privileges of pods and roles of databases, tested from inside the pods."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from localmesh.kind.programs import NAMESPACE
from tests.cluster.cluster_mesh import SERVICES, KubectlFailed, Process, kubectl, objects, pods, processes
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
from concurrent.futures import ThreadPoolExecutor
def dial(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        return "reached"
    except socket.gaierror:
        return "unknown"
    except OSError:
        return "refused"
with ThreadPoolExecutor() as threads:
    for target, result in zip(sys.argv[1:], threads.map(dial, sys.argv[1:])):
        print(target, result)
"""
"""Runs in a pod and prints for each host:port whether it is reachable, refused, or has no address."""


def pod(name: str, **security: object) -> str:
    """An idle pod."""
    container = {"name": "python", "image": IMAGE, "command": ["python", "-c", "import signal; signal.pause()"]}
    spec = {"containers": [{**container, "securityContext": RESTRICTED | security}], "terminationGracePeriodSeconds": 0}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


@contextmanager
def stray(namespace: str) -> Iterator[None]:
    """A pod that belongs to no workload."""
    kubectl("apply", "--filename=-", given=pod(STRAY), namespace=namespace)
    try:
        kubectl("wait", f"pod/{STRAY}", "--for=condition=Ready", "--timeout=60s", namespace=namespace)
        yield
    finally:
        kubectl("delete", "pod", STRAY, "--wait=true", namespace=namespace)


def connect_from(name: str, targets: list[str], namespace: str = NAMESPACE) -> dict[str, str]:
    """The result of connecting to each host:port from a pod."""
    said = kubectl("exec", name, "--", "python", "-c", DIAL, *targets, namespace=namespace)
    return dict(line.rsplit(" ", 1) for line in said.splitlines())


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Another namespace."""
    kubectl("create", "namespace", ELSEWHERE)
    try:
        yield ELSEWHERE
    finally:
        kubectl("delete", "namespace", ELSEWHERE, "--wait=true")


def test_an_unknown_pod_in_the_namespace_reaches_only_dns() -> None:
    with stray(NAMESPACE):
        targets = [f"{name}:{port}" for name, port in OPEN_PORTS.items()]
        found = connect_from(STRAY, ["kube-dns.kube-system:53", *targets, "api-edge:80"])
    assert found.pop("kube-dns.kube-system:53") == "reached"
    assert set(found.values()) == {"refused"}, found


def test_a_pod_of_another_namespace_reaches_only_the_edge(elsewhere: str) -> None:
    with stray(elsewhere):
        targets = [f"{name}.{NAMESPACE}:{port}" for name, port in OPEN_PORTS.items()]
        found = connect_from(STRAY, ["kube-dns.kube-system:53", f"api-edge.{NAMESPACE}:80", *targets], elsewhere)
    assert found.pop("kube-dns.kube-system:53") == found.pop(f"api-edge.{NAMESPACE}:80") == "reached"
    assert set(found.values()) == {"refused"}, found


async def test_the_edge_reaches_its_backends_and_jaeger_and_no_database(mesh: ClusterMesh) -> None:
    found = connect_from(pods("api-edge")[0].name, [f"{name}:{port}" for name, port in OPEN_PORTS.items()])
    assert found.pop("postgres:5432") == "refused"
    assert set(found.values()) == {"reached"}, found
    assert (await call(mesh, "GET", "/v1/products/TEA-0001?strict=true")).status == 200


def test_pod_security_rejects_a_privileged_pod() -> None:
    with pytest.raises(KubectlFailed, match='violates PodSecurity "restricted'):
        kubectl("create", "--filename=-", given=pod("privileged", privileged=True, allowPrivilegeEscalation=True))


@pytest.mark.parametrize("app", WORKLOADS)
def test_every_process_runs_with_the_least_privileges(app: str) -> None:
    uid = "999" if app == "postgres" else "10001"
    for one in pods(app):
        found = processes(one)
        assert found, one
        for status in filter(None, (process.read("status") for process in found)):
            assert_unprivileged(status, uid)
        assert_sealed(found[0])


def assert_unprivileged(text: str, uid: str) -> None:
    """Asserts that a process, by its /proc/<pid>/status, has no privileges and can gain none."""
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {uid}
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capabilities], 16) == 0, capabilities
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def assert_sealed(process: Process) -> None:
    """Asserts that the root filesystem is read-only, and that no service account token is mounted."""
    mounts = {line.split()[4]: line.split()[5].split(",") for line in process.read("mountinfo").splitlines()}
    assert "ro" in mounts["/"]
    assert not [path for path in mounts if "serviceaccount" in path]


ROLE = """
import asyncio, asyncpg, sys
user, database, *addresses = sys.argv[1:]
password = sys.stdin.read()
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
"""Runs in a backend's pod, reads a password, and prints the result of a login at each address of PostgreSQL."""


def login(service: str, database: str, password: str) -> set[str]:
    """The results of logins with a service's role, at PostgreSQL's name and at its pod's address."""
    address = objects("pods", "--selector=app.kubernetes.io/name=postgres")[0]["status"]["podIP"]
    name = pods(service)[0].name
    python = ("exec", "--stdin", name, "--", "/venv/bin/python", "-c", ROLE)
    said = kubectl(*python, service, database, "postgres", address, given=password)
    verdicts = dict(line.split(" ", 1) for line in said.splitlines())
    assert set(verdicts) == {"postgres", address}
    return set(verdicts.values())


def password_of(service: str) -> str:
    """The password in the service's Secret."""
    name = pods(service)[0].name
    return kubectl("exec", name, "--", "printenv", "PGPASSWORD").strip()


@pytest.mark.parametrize(("service", "other"), [("inventory", "pricing"), ("pricing", "inventory")])
def test_a_role_can_log_in_only_to_its_own_database_with_its_own_password(service: str, other: str) -> None:
    password = password_of(service)
    assert login(service, service, password) == {"let in"}
    assert login(service, other, password) == {"InsufficientPrivilegeError"}
    assert login(service, "postgres", password) == {"InsufficientPrivilegeError"}
    assert login(service, service, password + "x") == {"InvalidPasswordError"}
    assert login(other, service, password + "x") == {"InvalidPasswordError"}


def test_postgres_requires_a_password_also_inside_its_own_pod() -> None:
    """Initdb trusts local connections by default."""
    with pytest.raises(KubectlFailed, match="password authentication failed"):
        kubectl(
            "exec", "postgres-0", "--", "env", "PGPASSWORD=wrong",
            "psql", "--host=127.0.0.1", "--username=inventory", "--dbname=inventory", "--command=SELECT 1",
        )  # fmt: skip
