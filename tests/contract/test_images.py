"""The properties of the Dockerfile and the build context that can be tested without a container engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from runpy import run_path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.repository import ROOT, SERVICES, texts

if TYPE_CHECKING:
    from pathlib import Path

each_service = pytest.mark.parametrize("service", SERVICES)


class Instruction(NamedTuple):
    """One instruction of the Dockerfile, continuation lines joined."""

    keyword: str
    value: str


def instructions(folder: str = "services") -> list[Instruction]:
    """The instructions of a folder's Dockerfile in order, without comments."""
    text = (ROOT / folder / "Dockerfile").read_text()
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [Instruction(*line.split(" ", 1)) for line in joined.splitlines() if line]


def values(keyword: str, folder: str = "services") -> list[str]:
    """The values of all instructions with this keyword."""
    return [found.value for found in instructions(folder) if found.keyword == keyword]


def stages() -> list[list[Instruction]]:
    """The instructions of each stage; the last one becomes the image."""
    found: list[list[Instruction]] = []
    for instruction in instructions():
        if instruction.keyword == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def assignments(keyword: str) -> dict[str, str]:
    """The KEY=value pairs of the last stage's ENV or LABEL."""
    text = " ".join(found.value for found in stages()[-1] if found.keyword == keyword)
    return {key: quoted or plain for key, quoted, plain in re.findall(r'([\w.]+)=(?:"([^"]*)"|(\S+))', text)}


def licence(service: str) -> str:
    """The licence of a service's project."""
    found = tomllib.loads((ROOT / "services" / service / "pyproject.toml").read_text())["project"]["license"]
    return str(found)


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern of .dockerignore matches this path or a folder above it.

    The rules are Docker's: https://docs.docker.com/build/concepts/context/#dockerignore-files
    """
    translated = {"**/": "(?:.*/)?", "*": "[^/]*"}
    parts = re.split(r"(\*\*/|\*)", pattern)
    return re.match("".join(translated.get(part, re.escape(part)) for part in parts) + "(?:/|$)", path) is not None


def in_context(path: str) -> bool:
    """Whether a path of the repository is in the build context: the last match in .dockerignore decides."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    decisions = [rule.startswith("!") for rule in rules if matches(rule.removeprefix("!"), path)]
    return not decisions or decisions[-1]


def test_the_service_receives_the_signals() -> None:
    """A shell would not forward SIGTERM."""
    [entrypoint] = values("ENTRYPOINT")
    assert json.loads(entrypoint) == ["/venv/bin/service"]
    assert not values("CMD")
    [members] = [run for run in values("RUN") if "libs/meshkit" in run]
    assert "services/entrypoint.py ${SERVICE} /members/bin/service" in members


@pytest.fixture
def program(service: str, tmp_path: Path) -> str:
    """The text of the program of a service's image."""
    path = tmp_path / "bin" / "service"
    run_path(str(ROOT / "services" / "entrypoint.py"))["main"](service, path)
    assert os.access(path, os.X_OK)
    return path.read_text()


@each_service
def test_an_image_listens_on_all_addresses_at_the_declared_port(service: str, program: str) -> None:
    settings = import_module(f"{service}.settings").Settings
    host, _, port = settings.model_fields["listen"].default.rpartition(":")
    assert host == "127.0.0.1"
    variable = f"{settings.model_config['env_prefix']}LISTEN"
    assert f'os.environ.setdefault("{variable}", "0.0.0.0:{port}")' in program


@each_service
def test_an_image_runs_the_module_of_its_service_without_a_shell(service: str, program: str) -> None:
    """The error about an invalid setting shows that the module runs."""
    shebang, _, code = program.partition("\n")
    assert shebang == "#!/venv/bin/python"
    variable = f"{import_module(f'{service}.settings').Settings.model_config['env_prefix']}LISTEN"
    done = subprocess.run(
        (sys.executable, "-c", code), env={variable: "nowhere"}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert variable in done.stdout + done.stderr


def test_an_image_runs_as_a_numbered_user_without_privileges() -> None:
    """`runAsNonRoot` rejects a user without a number."""
    [user] = values("USER")
    assert [int(number) >= 10000 for number in user.split(":")] == [True, True]


def test_every_stage_uses_the_replaceable_python_image() -> None:
    first, *_ = instructions()
    assert first.keyword == "ARG"
    assert re.fullmatch(r"PYTHON_IMAGE=python:\d+\.\d+-slim-\w+", first.value)
    names = {value.rpartition(" AS ")[2] for value in values("FROM") if " AS " in value}
    assert {value.partition(" ")[0] for value in values("FROM")} - names == {"${PYTHON_IMAGE}", "scratch"}


@each_service
def test_an_image_is_labelled_with_its_name_and_licence(service: str) -> None:
    assert assignments("LABEL") == {
        "org.opencontainers.image.title": "aiomesh/${SERVICE//_/-}",
        "org.opencontainers.image.description": "The service ${SERVICE} of aiomesh",
        "org.opencontainers.image.licenses": licence(service),
        "org.opencontainers.image.source": "${SOURCE}",
        "org.opencontainers.image.version": "${VERSION}",
        "org.opencontainers.image.revision": "${REVISION}",
    }


def test_third_party_packages_come_hash_checked_from_the_lock_of_the_service() -> None:
    [lock] = [stage for stage in stages() if stage[0].value == "scratch AS lock"]
    assert Instruction("COPY", "services/${SERVICE}/requirements.lock /") in lock
    [locked] = [run for run in values("RUN") if "-r /requirements.lock" in run]
    assert "from=lock,source=requirements.lock,target=/requirements.lock" in locked
    assert "--require-hashes" in locked


def test_services_with_the_same_lock_share_the_layer_of_its_packages() -> None:
    """A stage with SERVICE in scope is different for each service."""
    named = {
        stage[0].value.rpartition(" AS ")[2] for stage in stages() if any("SERVICE" in line.value for line in stage)
    }
    assert named == {"lock", "members", stages()[-1][0].value}


def test_members_are_installed_without_an_index() -> None:
    [members] = [run for run in values("RUN") if "libs/meshkit" in run]
    assert {"--no-deps", "--no-build-isolation", "services/${SERVICE}"} <= set(members.split())
    assert not {"-e", "--editable"} & set(members.split())


def test_an_image_contains_only_finished_environments() -> None:
    """So it cannot contain pip's caches, sources or another service."""
    assert {found.keyword for found in stages()[-1]} <= {"FROM", "COPY", "ENV", "USER", "ENTRYPOINT", "ARG", "LABEL"}
    copies = [found.value for found in stages()[-1] if found.keyword == "COPY"]
    assert copies == ["--from=dependencies /venv /venv", "--from=members /members /venv"]


def test_the_build_context_contains_only_sources_and_locks_of_the_members() -> None:
    """For a new kind of file: either list it here or exclude it in .dockerignore."""
    member = r"(src/.+|pyproject\.toml)"
    library = r"(src/.+|pyproject\.toml|README\.md|LICENSE)"
    wanted = re.compile(rf"libs/\w+/{library}|services/(entrypoint\.py|\w+/({member}|requirements\.lock))")
    paths = {path.relative_to(ROOT).as_posix() for path in texts()}
    assert {path for path in paths if in_context(path)} == {path for path in paths if wanted.fullmatch(path)}


@pytest.mark.parametrize(
    "path",
    [
        ".git/HEAD",
        ".venv/bin/python",
        ".localmesh/one.db",
        "services/one/one.db-wal",
        "services/one/.env",
        "services/one/src/one/__pycache__/app.cpython-313.pyc",
        "libs/meshkit/dist/meshkit-0.1.0.tar.gz",
        "libs/meshkit/.mypy_cache/CACHEDIR.TAG",
    ],
)
def test_caches_and_state_of_a_working_copy_are_not_in_the_build_context(path: str) -> None:
    assert not in_context(path)
