"""`make kind-up` with fake programs docker, kind and kubectl on the PATH."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from localmesh.console import Console
from localmesh.kind.deploy import apply
from localmesh.kind.images import provide
from localmesh.kind.programs import CONTEXT, NAMESPACE, CannotGoOn
from localmesh.kind.rollout import LIMIT, Rollout
from localmesh.kind.settings import KindSettings
from tests.repository import SERVICES

if TYPE_CHECKING:
    from pathlib import Path

UP = [sys.executable, "-m", "localmesh.kind", "up"]
OVERLAY = "deploy/k8s/overlays/kind"
ON_CLUSTER = f" --context={CONTEXT} --namespace={NAMESPACE}"
OBJECTS = f"namespace/{NAMESPACE} deployment.apps/tax statefulset.apps/postgres horizontalpodautoscaler.autoscaling/tax"


class Programs:
    """Fake programs: each records its calls, and runs the shell code of the first pattern that matches a call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cases: list[str] = []
        self._write()

    def on(self, pattern: str, code: str) -> None:
        """Runs this shell code for calls that match a pattern of `case`."""
        self._cases.append(f"{pattern}) {code} ;;")
        self._write()

    @property
    def calls(self) -> list[str]:
        """The calls so far, without the options that name the cluster."""
        lines = (self._folder / "calls").read_text().splitlines()
        return [line.removesuffix(ON_CLUSTER) for line in lines]

    def _write(self) -> None:
        cases = "\n".join([*self._cases, "*) ;;"])
        for name in ("docker", "kind", "kubectl"):
            program = self._folder / name
            calls = self._folder / "calls"
            program.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >>{calls}\ncase "{name} $*" in\n{cases}\nesac\n')
            program.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Programs(tmp_path)


def test_images_are_loaded_by_content_and_by_the_tag_of_the_overlay(programs: Programs) -> None:
    workloads = sorted(service.replace("_", "-") for service in SERVICES)
    overlay = "\n".join(f"  image: aiomesh/{workload}:dev" for workload in workloads)
    programs.on('"kubectl kustomize "*', f"echo '{overlay}\n  image: postgres:17'")
    programs.on('"docker build "*', "echo sha256:0123456789abcdef0123")
    builds = provide(Console())
    assert builds == {workload: f"aiomesh/{workload}:0123456789ab" for workload in workloads}
    tagged = [call for call in programs.calls if call.startswith("docker tag")]
    assert sorted(tagged) == [f"docker tag sha256:0123456789abcdef0123 {builds[workload]}" for workload in workloads]
    ours, others = (call for call in programs.calls if call.startswith("kind load docker-image --name=aiomesh "))
    assert set(ours.split()[4:]) == {*builds.values(), *(f"aiomesh/{workload}:dev" for workload in workloads)}
    assert others.split()[4:] == ["postgres:17"]


def test_only_a_deployment_with_a_new_image_is_restarted(programs: Programs) -> None:
    programs.on('"kubectl get deployments "*', "printf 'stock aiomesh/stock:1\\ntax aiomesh/tax:1\\n'")
    apply({"stock": "aiomesh/stock:1", "tax": "aiomesh/tax:2"}, KindSettings(traces_port=16686))
    assert programs.calls[1:] == [
        f"kubectl apply --kustomize={OVERLAY}",
        "kubectl annotate deployment/stock aiomesh/build=aiomesh/stock:1 --overwrite",
        "kubectl rollout restart deployment/tax",
        "kubectl annotate deployment/tax aiomesh/build=aiomesh/tax:2 --overwrite",
    ]


def test_a_deployment_without_a_build_is_restarted_and_a_new_one_is_not(programs: Programs) -> None:
    programs.on('"kubectl get deployments "*', "echo 'jaeger '; echo 'tax '")
    apply({"stock": "aiomesh/stock:1", "tax": "aiomesh/tax:1"}, KindSettings(traces_port=16686))
    assert [call for call in programs.calls if " restart " in call] == ["kubectl rollout restart deployment/tax"]


def test_the_trace_links_of_the_edge_use_the_chosen_port(programs: Programs) -> None:
    apply({}, KindSettings(traces_port=9000))
    url = "EDGE_TRACE_URL=http://localhost:9000/trace/{trace_id}"
    assert programs.calls[-1] == f"kubectl set env deployment/api-edge {url}"


def test_all_workloads_of_the_overlay_share_one_time_limit(programs: Programs) -> None:
    programs.on('"kubectl get --kustomize="*', f"printf '%s\\n' {OBJECTS}")
    assert Rollout(Console()).wait().keys() == {"tax", "postgres"}
    calls, limits = zip(*(call.split(" --timeout=") for call in programs.calls[1:]), strict=True)
    assert sorted(calls) == [
        "kubectl rollout status deployment.apps/tax",
        "kubectl rollout status statefulset.apps/postgres",
        "kubectl wait horizontalpodautoscaler.autoscaling/tax --for=condition=AbleToScale",
    ]
    assert all(1 <= int(limit.removesuffix("s")) <= LIMIT for limit in limits)


def test_a_failed_rollout_shows_pods_warnings_and_logs_as_kubectl_prints_them(
    programs: Programs, capfd: pytest.CaptureFixture[str]
) -> None:
    programs.on('"kubectl get --kustomize="*', f"printf '%s\\n' {OBJECTS}")
    programs.on('"kubectl rollout status deployment"*', "echo 'error: timed out' >&2; exit 1")
    programs.on('"kubectl get pods "*', "echo the pods")
    programs.on('"kubectl events --types=Warning "*', "echo the warnings")
    programs.on('"kubectl logs --selector=app.kubernetes.io/name=tax "*" --previous "*', "echo the log before")
    programs.on('"kubectl logs --selector=app.kubernetes.io/name=tax "*', "echo the log")
    with pytest.raises(CannotGoOn, match=r"^not ready: tax; "):
        Rollout(Console()).wait()
    shown, errors = capfd.readouterr()
    assert errors == "error: timed out\n"
    texts = [line for line in shown.splitlines() if line.startswith("the ")]
    assert texts == ["the pods", "the warnings", "the log", "the log before"]


def test_a_failing_kubectl_does_not_hide_which_workloads_are_not_ready(programs: Programs) -> None:
    programs.on('"kubectl get --kustomize="*', f"printf '%s\\n' {OBJECTS}")
    programs.on('"kubectl "*', "exit 1")
    with pytest.raises(CannotGoOn, match=r"^not ready: tax, postgres; "):
        Rollout(Console()).wait()


def test_a_failure_exits_with_status_1_and_one_line_with_details(programs: Programs) -> None:
    programs.on('"kind get clusters"', "echo 'no engine' >&2; exit 1")
    done = subprocess.run(UP, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == ["kind get failed with exit status 1", "  | no engine"]


def test_an_interrupt_during_the_rollout_exits_without_a_traceback(programs: Programs, tmp_path: Path) -> None:
    waits = tmp_path / "waits"
    os.mkfifo(waits)
    overlay = "\n".join(f"  image: aiomesh/{service.replace('_', '-')}:dev" for service in SERVICES)
    host_ports = {"30080": "8080", "30050": "50050", "30686": "16686"}
    ports = json.dumps({f"{port}/tcp": [{"HostPort": host_port}] for port, host_port in host_ports.items()})
    programs.on('"kind get clusters"', "echo aiomesh")
    programs.on('"docker inspect "*', f"echo '{ports}'")
    programs.on('"kubectl kustomize "*', f"echo '{overlay}'")
    programs.on('"kubectl get --kustomize="*', f"printf '%s\\n' {OBJECTS}")
    programs.on('"kubectl rollout status deployment"*', f"echo waiting >{waits}; exec sleep 60")
    process = subprocess.Popen(
        UP,
        env={**os.environ, "EDGE_PORT": "8080", "EDGE_GRPC_PORT": "50050", "TRACES_PORT": "16686"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert waits.read_text() == "waiting\n"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (-signal.SIGINT, "")
