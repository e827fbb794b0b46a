"""`make pin-images` writes what Skaffold has pushed into the production overlay, or says why not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from localmesh.services import read_services
from tests.repository import ROOT
from tools import service_lists
from tools.pin_images import CannotPin, pin

if TYPE_CHECKING:
    from pathlib import Path

WORKLOADS = [service.workload for service in read_services(ROOT)]
REGISTRY = "registry.example.com:5000/shop"


def digest(workload: str) -> str:
    return "sha256:" + workload.encode().hex().ljust(64, "0")


def pushed(workload: str) -> dict[str, str]:
    """One build as `skaffold build --file-output` of Skaffold 2.16 writes it."""
    name = f"{REGISTRY}/aiomesh_{workload.replace('-', '_')}"
    return {"imageName": f"aiomesh/{workload}", "tag": f"{name}:0.1.0-3-g1f2e3d4-dirty@{digest(workload)}"}


def builds(copy: Path, *found: object) -> str:
    """The file with these builds."""
    path = copy / "builds.json"
    path.write_text(json.dumps({"builds": found}))
    return str(path)


def images(copy: Path) -> list[dict[str, Any]]:
    """The `images` of the production overlay."""
    found: list[dict[str, Any]] = yaml.safe_load((copy / service_lists.PRODUCTION).read_text())["images"]
    return found


def test_every_image_is_pinned_by_the_name_and_digest_of_its_push(copy: Path) -> None:
    others = {"imageName": "aiomesh/other", "tag": "other:1"}
    names = pin(builds(copy, others, *map(pushed, reversed(WORKLOADS))), copy)
    assert names == [f"{one['newName']}@{one['digest']}" for one in images(copy)]
    assert images(copy) == [
        {
            "name": f"aiomesh/{workload}",
            "newName": f"{REGISTRY}/aiomesh_{workload.replace('-', '_')}",
            "digest": digest(workload),
        }
        for workload in WORKLOADS
    ]


def test_make_generate_keeps_the_digests_and_a_later_push_replaces_them(copy: Path) -> None:
    pin(builds(copy, *map(pushed, WORKLOADS)), copy)
    overlay = copy / service_lists.PRODUCTION
    assert service_lists.generated(copy)[overlay] == overlay.read_text()
    later = {workload: pushed(workload) for workload in WORKLOADS}
    later[WORKLOADS[0]]["tag"] = f"other.example.com/one@{digest('later')}"
    pin(builds(copy, *later.values()), copy)
    assert [one["digest"] for one in images(copy)] == [digest("later"), *map(digest, WORKLOADS[1:])]


FIRST, *REST = WORKLOADS


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        (f"{REGISTRY}/one:1.4.0", "push it"),
        ("one:2f1a8c6d", "push it"),
        (f"{REGISTRY}/one@{digest(FIRST)[:-1]}", "64 hexadecimal digits"),
        (f"{REGISTRY}/one@{digest(FIRST)}0", "64 hexadecimal digits"),
        (f"{REGISTRY}/one@{digest(FIRST).upper()}", "64 hexadecimal digits"),
        (f"{REGISTRY}/one@sha512:{'0' * 128}", "64 hexadecimal digits"),
        (f"one}}, {{name: two@{digest(FIRST)}", "64 hexadecimal digits"),
        (f"{REGISTRY}/one@{digest(FIRST)}\n", "64 hexadecimal digits"),
        (7, "push it"),
    ],
)
def test_an_image_without_a_valid_digest_is_named_and_nothing_is_written(copy: Path, tag: object, reason: str) -> None:
    before = (copy / service_lists.PRODUCTION).read_bytes()
    with pytest.raises(CannotPin, match=f"^aiomesh/{FIRST}: .*{reason}"):
        pin(builds(copy, {"imageName": f"aiomesh/{FIRST}", "tag": tag}, *map(pushed, REST)), copy)
    assert (copy / service_lists.PRODUCTION).read_bytes() == before


def test_a_file_without_a_service_names_it(copy: Path) -> None:
    with pytest.raises(
        CannotPin, match=rf"builds\.json has no build of aiomesh/{FIRST}: build all images with `skaffold"
    ):
        pin(builds(copy, *map(pushed, REST)), copy)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"builds": {}', '{"builds": [7]}', '{"builds": [{"tag": "one"}]}', "\xff"]
)
def test_a_file_that_skaffold_did_not_write_is_reported(copy: Path, text: str) -> None:
    (copy / "builds.json").write_text(text, encoding="latin-1")
    with pytest.raises(CannotPin, match=r"builds\.json is not the output of `skaffold build --file-output`$"):
        pin(str(copy / "builds.json"), copy)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("", "name a file, as in `make pin-images BUILDS="), ("nowhere.json", "nowhere.json: No such file")],
)
def test_a_missing_file_ends_the_target_with_one_line(path: str, reason: str) -> None:
    command = (sys.executable, "-m", "tools.pin_images", path)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"make pin-images: {reason}")
