"""The Makefile is thin, and `make help` lists exactly the existing settings."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from localmesh.kind.settings import KindSettings
from localmesh.settings import Settings
from tests.repository import ROOT

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

MAKEFILE = (ROOT / "Makefile").read_text()


class Target(NamedTuple):
    """One rule of a Makefile."""

    name: str
    help: str
    recipe: list[str]


def targets(makefile: str) -> list[Target]:
    rules = re.findall(r"^([\w-]+):(?!=)([^#\n]*)(?:## (.*))?\n((?:\t.*\n?)*)", makefile, re.MULTILINE)
    return [Target(name, text.strip(), recipe.splitlines()) for name, _, text, recipe in rules]


def faults(makefile: str) -> list[str]:
    """What keeps a Makefile from being a thin face: each target has a help text and a recipe of one line."""
    listed = set(re.findall(r"^TARGETS :=(.*)$", makefile, re.MULTILINE)[0].split())
    return [
        fault
        for name, text, recipe in targets(makefile)
        for fault, wrong in {
            f"{name} has no help text": not text,
            f"{name} has {len(recipe)} lines": len(recipe) != 1,
            f"{name} is not in TARGETS": name not in listed,
        }.items()
        if wrong
    ]


def described_settings(help_text: str) -> dict[str, str]:
    """The settings in the text of `make help` with their defaults, or empty."""
    rows = re.findall(r"^  ([A-Z_]+) {2,}(?:\S+ )*\S+(?: {2,}(\S+))?$", help_text, re.MULTILINE)
    return dict(rows)


def known_settings() -> dict[str, str]:
    """The settings of both meshes and the user's variables of the Makefile, with their defaults."""
    of_make = dict(re.findall(r"^([A-Z_]+) \?= (\S+)$", MAKEFILE, re.MULTILINE))
    fields = KindSettings.model_fields | Settings.model_fields
    return of_make | {"NAME_PORT": ""} | {name.upper(): _default(field) for name, field in fields.items()}


def _default(field: FieldInfo) -> str:
    return "" if field.default_factory or not field.default else str(field.default)


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ("make", "--no-print-directory", *arguments)
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


def make_help() -> str:
    return make("help").stdout


def test_every_target_has_a_help_text_and_one_line() -> None:
    assert {"up", "test", "check"} <= {target.name for target in targets(MAKEFILE)}
    assert not faults(MAKEFILE)


def test_make_help_lists_every_target() -> None:
    rows = re.findall(r"^(  make ([\w-]+) +)(.+)$", make_help(), re.MULTILINE)
    assert [(name, text) for _, name, text in rows] == [(target.name, target.help) for target in targets(MAKEFILE)]
    assert len({len(before) for before, _, _ in rows}) == 1, "the texts stand in one column"


def test_make_help_lists_every_setting_and_its_default() -> None:
    assert described_settings(make_help()) == known_settings()


@pytest.mark.parametrize(
    ("goal", "advice"),
    [
        ("tests", "`make test`, or `make help` for all targets"),  # a folder of this name exists
        ("docs", "`make help` for all targets"),
        ("chek", "`make check`, or `make help` for all targets"),
        ("kind-upp", "`make kind-up`, or `make help` for all targets"),
        ("README.md", "`make help` for all targets"),
    ],
)
def test_an_unknown_target_fails_and_says_what_to_type(goal: str, advice: str) -> None:
    made = make("help", goal)
    assert (made.returncode, made.stdout) == (2, ""), "and nothing else is run"
    (line,) = made.stderr.splitlines()
    assert f"there is no target `{goal}`; try {advice}.  Stop." in line


def test_an_unknown_target_fails_with_advice_where_there_is_no_python() -> None:
    made = make("tests", "PYTHON=/nowhere/python")
    assert made.returncode == 2
    assert "there is no target `tests`; try `make help`." in made.stderr


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("up:\n\t@one\n", "up has no help text"),
        ("up: ## Run\n\t@one\n\t@two\n", "up has 2 lines"),
        ("up: ## Run\n", "up has 0 lines"),
        ("kind-up: ## Run\n\t@one\n", "kind-up is not in TARGETS"),
    ],
)
def test_a_target_that_is_not_thin_is_reported(rule: str, fault: str) -> None:
    assert faults(f"TARGETS := up\nRUN := python -m\n\n{rule}") == [fault]


def test_settings_are_read_from_the_help_text_with_and_without_defaults() -> None:
    text = (
        "Settings of `make up`:\n  EDGE_PORT   REST API     8080\n  JAEGER_BIN  a program to run\n  make up      Run\n"
    )
    assert described_settings(text) == {"EDGE_PORT": "8080", "JAEGER_BIN": ""}
