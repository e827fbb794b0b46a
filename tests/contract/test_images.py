"""What the Dockerfiles and the build context promise, as far as it shows without an engine."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import import_module
from typing import NamedTuple

import pytest

from tests.repository import ROOT, SERVICES, texts

each_service = pytest.mark.parametrize("service", SERVICES)


class Instruction(NamedTuple):
    """One instruction of a Dockerfile, continuation lines joined."""

    keyword: str
    value: str


def instructions(service: str) -> list[Instruction]:
    """The instructions of a service's Dockerfile in order, without comments."""
    text = (ROOT / "services" / service / "Dockerfile").read_text()
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [Instruction(*line.split(" ", 1)) for line in joined.splitlines() if line]


def values(service: str, keyword: str) -> list[str]:
    """What every instruction of that keyword says."""
    return [found.value for found in instructions(service) if found.keyword == keyword]


def shipped(service: str) -> list[Instruction]:
    """The instructions of the last stage, the one that becomes the image."""
    found = instructions(service)
    last = max(number for number, instruction in enumerate(found) if instruction.keyword == "FROM")
    return found[last:]


def assignments(service: str, keyword: str) -> dict[str, str]:
    """The KEY=value pairs that the last stage's ENV or LABEL sets."""
    text = " ".join(found.value for found in shipped(service) if found.keyword == keyword)
    return {key: quoted or plain for key, quoted, plain in re.findall(r'([\w.]+)=(?:"([^"]*)"|(\S+))', text)}


def project(service: str) -> dict[str, str]:
    """The [project] table of a service."""
    found: dict[str, str] = tomllib.loads((ROOT / "services" / service / "pyproject.toml").read_text())["project"]
    return found


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern of .dockerignore names this path or a folder above it.

    The rules are Docker's: https://docs.docker.com/build/concepts/context/#dockerignore-files
    """
    translated = {"**/": "(?:.*/)?", "*": "[^/]*"}
    parts = re.split(r"(\*\*/|\*)", pattern)
    return re.match("".join(translated.get(part, re.escape(part)) for part in parts) + "(?:/|$)", path) is not None


def in_context(path: str) -> bool:
    """Whether .dockerignore lets a path of the repository into the build context: its last match decides."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    decisions = [rule.startswith("!") for rule in rules if matches(rule.removeprefix("!"), path)]
    return not decisions or decisions[-1]


@each_service
def test_the_service_itself_gets_the_signals(service: str) -> None:
    """A shell between would keep SIGTERM to itself."""
    [entrypoint] = values(service, "ENTRYPOINT")
    assert json.loads(entrypoint) == ["/venv/bin/python", "-m", service]
    assert not values(service, "CMD")


@each_service
def test_an_image_runs_as_a_numbered_user_without_privileges(service: str) -> None:
    """`runAsNonRoot` refuses a user that has only a name."""
    [user] = values(service, "USER")
    assert [int(number) >= 10000 for number in user.split(":")] == [True, True]


@each_service
def test_every_stage_stands_on_the_python_that_the_builder_may_replace(service: str) -> None:
    first, *_ = instructions(service)
    assert first.keyword == "ARG"
    assert re.fullmatch(r"PYTHON_IMAGE=python:\d+\.\d+-slim-\w+", first.value)
    stages = {value.rpartition(" AS ")[2] for value in values(service, "FROM") if " AS " in value}
    assert {value.partition(" ")[0] for value in values(service, "FROM")} - stages == {"${PYTHON_IMAGE}"}


@each_service
def test_an_image_is_labelled_with_what_the_project_says_of_itself(service: str) -> None:
    labels, told = assignments(service, "LABEL"), project(service)
    assert labels == {
        "org.opencontainers.image.title": f"aiomesh/{told['name']}",
        "org.opencontainers.image.description": told["description"],
        "org.opencontainers.image.licenses": told["license"],
        "org.opencontainers.image.source": "${SOURCE}",
        "org.opencontainers.image.version": "${VERSION}",
        "org.opencontainers.image.revision": "${REVISION}",
    }


@each_service
def test_third_party_packages_come_from_the_lock_of_the_service_with_their_hashes(service: str) -> None:
    [locked] = [run for run in values(service, "RUN") if "-r /requirements.lock" in run]
    assert f"source=services/{service}/requirements.lock,target=/requirements.lock" in locked
    assert "--require-hashes" in locked


@each_service
def test_members_are_installed_without_asking_an_index(service: str) -> None:
    [members] = [run for run in values(service, "RUN") if "libs/meshkit" in run]
    assert {"--no-deps", "--no-build-isolation"} <= set(members.split())
    assert not {"-e", "--editable"} & set(members.split())


@each_service
def test_an_image_takes_nothing_but_finished_environments(service: str) -> None:
    """So neither pip's leftovers nor sources nor another service can be in it."""
    assert {found.keyword for found in shipped(service)} <= {
        *("FROM", "COPY", "ENV", "EXPOSE", "USER", "ENTRYPOINT", "ARG", "LABEL"),
    }
    copies = [found.value for found in shipped(service) if found.keyword == "COPY"]
    assert copies == ["--from=dependencies /venv /venv", "--from=members /members /venv"]


@each_service
def test_an_image_listens_on_every_address_at_the_port_of_the_settings(service: str) -> None:
    settings = import_module(f"{service}.settings").Settings
    host, _, port = settings.model_fields["listen"].default.rpartition(":")
    assert host == "127.0.0.1"
    assert assignments(service, "ENV")[f"{settings.model_config['env_prefix']}LISTEN"] == f"0.0.0.0:{port}"
    assert values(service, "EXPOSE") == [port]


def test_the_dockerfiles_differ_in_names_alone() -> None:
    def shape(service: str) -> str:
        text = (ROOT / "services" / service / "Dockerfile").read_text()
        [port], told = values(service, "EXPOSE"), project(service)
        prefix = str(import_module(f"{service}.settings").Settings.model_config["env_prefix"])
        for name in (told["description"], f"aiomesh/{told['name']}", prefix, port, service):
            text = text.replace(name, "…")
        return text

    assert len({shape(service) for service in SERVICES}) == 1


def test_the_build_context_is_the_sources_and_the_locks_of_the_members() -> None:
    """A new kind of file has to be thought of: it is listed here or left out there."""
    wanted = re.compile(r"libs/\w+/(src/.+|pyproject\.toml)|services/\w+/(src/.+|pyproject\.toml|requirements\.lock)")
    paths = {path.relative_to(ROOT).as_posix() for path in texts()}
    assert {path for path in paths if in_context(path)} == {path for path in paths if wanted.fullmatch(path)}


@pytest.mark.parametrize(
    "path",
    [
        ".git/HEAD",
        ".venv/bin/python",
        ".localmesh/inventory.db",
        "services/inventory/inventory.db-wal",
        "services/pricing/.env",
        "services/pricing/src/pricing/__pycache__/app.cpython-313.pyc",
        "libs/meshkit/dist/meshkit-0.1.0.tar.gz",
        "libs/meshkit/.mypy_cache/CACHEDIR.TAG",
    ],
)
def test_what_a_working_copy_gathers_stays_out_of_the_build_context(path: str) -> None:
    assert not in_context(path)
