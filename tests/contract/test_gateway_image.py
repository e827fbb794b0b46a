"""The properties of deploy/gateways/Dockerfile that can be tested without a container engine."""

from __future__ import annotations

import re
import signal

import pytest

from localmesh.gateways.known import GATEWAYS
from tests.contract.test_images import instructions, values

FOLDER = "deploy/gateways"


def stage(name: str) -> dict[str, str]:
    """The instructions of a stage by their keyword."""
    text = "\n".join(f"{line.keyword} {line.value}" for line in instructions(FOLDER))
    [found] = re.findall(rf"^(FROM \S+ AS {name}\n(?:(?!FROM ).+\n)*)", text, re.MULTILINE)
    return dict(line.split(" ", 1) for line in found.splitlines())


@pytest.mark.parametrize("name", GATEWAYS)
def test_each_gateway_is_a_stage_that_stops_by_the_signal_that_lets_it_finish(name: str) -> None:
    found = stage(name)
    assert (found["FROM"], found["CMD"]) == (f"program AS {name}", f'["{name}"]')
    assert signal.Signals[found.get("STOPSIGNAL", "SIGTERM")] is GATEWAYS[name].stop_signal


def test_the_program_comes_hash_checked_from_the_lock_of_the_gateway() -> None:
    [install] = values("RUN", FOLDER)
    assert "source=${GATEWAY}/requirements.lock,target=/requirements.lock" in install
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(install.split())


def test_the_image_runs_as_a_numbered_user_and_has_nothing_but_the_program() -> None:
    assert stage("program") == {
        "FROM": "${PYTHON_IMAGE} AS program",
        "COPY": "--from=installed /program /usr/local/bin",
        "USER": "10001:10001",
    }


def test_the_images_of_services_and_gateways_have_the_same_base() -> None:
    own, services = (values("ARG", folder)[0].split()[0] for folder in (FOLDER, "services"))
    assert own == services
