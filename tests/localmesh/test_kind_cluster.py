"""The configuration of the cluster, its settings, and the programs that it needs."""

import json
from pathlib import Path

import pytest

from localmesh.kind.cluster import config, read_host_ports
from localmesh.kind.programs import DOCKER, KIND, KUBECTL, CannotGoOn, check, run
from localmesh.kind.settings import KindSettings
from localmesh.settings import InvalidSettings, read
from tests.repository import ROOT

CONFIG = (ROOT / "deploy/kind/cluster.yaml").read_text()


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("EDGE_PORT", "EDGE_GRPC_PORT", "TRACES_PORT", "KIND_NODE_IMAGE"):
        monkeypatch.delenv(variable, raising=False)


def test_the_default_ports_leave_the_config_unchanged() -> None:
    assert config(CONFIG, KindSettings()) == CONFIG


def test_other_ports_change_only_the_host_ports_of_the_config() -> None:
    moved = config(CONFIG, KindSettings(edge_port=16686, edge_grpc_port=50060, traces_port=8080))
    changed = [pair for pair in zip(CONFIG.splitlines(), moved.splitlines(), strict=True) if len(set(pair)) > 1]
    assert changed == [
        ("        hostPort: 8080", "        hostPort: 16686"),
        ("        hostPort: 50050", "        hostPort: 50060"),
        ("        hostPort: 16686", "        hostPort: 8080"),
    ]


def test_a_config_without_a_node_port_is_invalid() -> None:
    with pytest.raises(ValueError, match="maps the node port 30686 0 times"):
        config(CONFIG.replace("30686", "30687"), KindSettings())


def test_the_host_port_of_each_node_port_is_read_from_docker() -> None:
    bindings = {
        "30080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8090"}],
        "6443/tcp": [{"HostIp": "127.0.0.1", "HostPort": "41234"}],
    }
    assert read_host_ports(json.dumps(bindings)) == {30080: 8090, 6443: 41234}


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_PORT", "8090")
    monkeypatch.setenv("KIND_NODE_IMAGE", "")
    settings = read(KindSettings)
    assert settings.ports == {"EDGE_PORT": 8090, "EDGE_GRPC_PORT": 50050, "TRACES_PORT": 16686}
    assert settings.kind_node_image is None


def test_the_two_ports_must_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_PORT", "16686")
    with pytest.raises(InvalidSettings, match="EDGE_PORT and TRACES_PORT are both 16686"):
        read(KindSettings)


def test_each_missing_program_is_named_with_its_installation_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotGoOn) as caught:
        check(DOCKER | KIND | KUBECTL)
    lines = str(caught.value).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["docker", "kind", "kubectl"]
    assert all(" is not on the PATH; to install it: https://" in line for line in lines)


def test_a_failed_program_is_reported_with_its_last_lines() -> None:
    with pytest.raises(CannotGoOn, match="sh -c failed with exit status 3") as caught:
        run("sh", "-c", "seq 30 >&2; exit 3")
    assert list(caught.value.details) == [str(number) for number in range(11, 31)]
