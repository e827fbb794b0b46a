"""The settings of a process as `--help` and the documents list them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshkit.command_line import help_text, rows
from meshkit.config import Address, OptionalAddress, Seconds
from meshkit.database.urls import DatabaseUrl
from tests.service_process import PROGRAMS, Program

pytestmark = pytest.mark.unit


class Settings(BaseSettings):
    """Settings from SHOP_* variables."""

    model_config = SettingsConfigDict(env_prefix="SHOP_")

    listen: Address = "127.0.0.1:80"
    """Where it listens."""
    page: OptionalAddress = ""
    database: DatabaseUrl = "sqlite:///shop.db"
    pause: Seconds = 2.5
    ratio: float = Field(0.1, gt=0, le=31536000)
    level: Literal["LOW", "HIGH", "TOP"] = "LOW"
    count: int = 3
    open: bool = True
    program: Path | None = None
    name: str


def test_a_setting_is_a_variable_with_its_type_and_default() -> None:
    assert [row[:3] for row in rows(Settings)] == [
        ("SHOP_LISTEN", "host:port", "127.0.0.1:80"),
        ("SHOP_PAGE", "host:port or empty", ""),
        ("SHOP_DATABASE", "URL", "sqlite:///shop.db"),
        ("SHOP_PAUSE", "number, at least 0", "2.5"),
        ("SHOP_RATIO", "number, more than 0, at most 31536000", "0.1"),
        ("SHOP_LEVEL", "LOW, HIGH or TOP", "LOW"),
        ("SHOP_COUNT", "whole number", "3"),
        ("SHOP_OPEN", "true or false", "true"),
        ("SHOP_PROGRAM", "path", ""),
        ("SHOP_NAME", "text", ""),
    ]


def test_the_meaning_of_a_setting_is_its_docstring() -> None:
    assert rows(Settings)[0].meaning == "Where it listens."


def test_the_help_text_shows_no_default_for_a_required_setting() -> None:
    text = help_text("shop", Settings)
    assert text.startswith(
        "usage: python -m shop [--help]\n\nSettings from SHOP_* variables.\n\n  SHOP_LISTEN  (host:port;"
    )
    assert text.endswith("\n\n  SHOP_NAME  (text)")


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=str)
def test_every_setting_is_described_in_sentences(program: Program) -> None:
    assert not [row.variable for row in rows(program.settings) if not row.meaning.endswith(".")]
