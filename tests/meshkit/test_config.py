"""Invalid settings end the process with one line each, which shows no secret."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Literal

import pytest
from pydantic import PositiveFloat
from pydantic_settings import BaseSettings, SettingsConfigDict

from localmesh.services import read_services
from meshkit.config import Address, load_settings
from meshkit.database.urls import DatabaseUrl

pytestmark = pytest.mark.unit

SETTINGS = [pytest.param(import_module(f"{one.name}.settings").Settings, id=one.name) for one in read_services()]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SHOP_", frozen=True)

    listen: Address = "127.0.0.1:50051"
    database_url: DatabaseUrl = "sqlite:///shop.db"
    grace_seconds: PositiveFloat = 5.0
    log_level: Literal["INFO", "DEBUG"] = "INFO"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SHOP_{name.upper()}", raising=False)


def refusal(capsys: pytest.CaptureFixture[str], cls: type[BaseSettings] = Settings) -> list[str]:
    """The error lines of loading the settings."""
    with pytest.raises(SystemExit) as ended:
        load_settings(cls)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert not printed.out
    return printed.err.splitlines()


def test_settings_come_from_the_variables_and_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_GRACE_SECONDS", "2.5")
    assert load_settings(Settings).model_dump() == {
        "listen": "127.0.0.1:50051",
        "database_url": "sqlite:///shop.db",
        "grace_seconds": 2.5,
        "log_level": "INFO",
    }


def test_each_invalid_variable_has_one_line_with_its_name_and_the_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHOP_GRACE_SECONDS", "-1")
    monkeypatch.setenv("SHOP_LOG_LEVEL", "LOUD")
    assert sorted(refusal(capsys)) == [
        "SHOP_GRACE_SECONDS: Input should be greater than 0",
        "SHOP_LOG_LEVEL: Input should be 'INFO' or 'DEBUG'",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "mysql://shop:s3cret@db/shop",
        "postgresql://shop:s3cret@db:port/shop",
        "postgresql://shop:s3cret@db:5432",
        "shop:s3cret@db",
        "mysql://db/shop?user=shop&password=s3cret",
    ],
)
def test_no_error_line_shows_a_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("SHOP_DATABASE_URL", url)
    (line,) = refusal(capsys)
    assert re.match("SHOP_DATABASE_URL: (a database is sqlite:///file or postgresql:|host must be a name)", line)
    assert "s3cret" not in line


@pytest.mark.parametrize("cls", SETTINGS)
@pytest.mark.parametrize("address", ["9464", "127.0.0.1", ":9464", "127.0.0.1:-1", "127.0.0.1:65536", "127.0.0.1:²"])
def test_an_invalid_listen_address_is_rejected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cls: type[BaseSettings], address: str
) -> None:
    variable = f"{cls.model_config['env_prefix']}LISTEN"
    monkeypatch.setenv(variable, address)
    assert refusal(capsys, cls) == [f"{variable}: must be host:port, such as 127.0.0.1:9464"]


def test_an_empty_listen_address_is_rejected_unless_it_is_optional(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHOP_LISTEN", "")
    assert refusal(capsys) == ["SHOP_LISTEN: must be host:port, such as 127.0.0.1:9464"]


@pytest.mark.parametrize("cls", SETTINGS)
@pytest.mark.parametrize("name", ["DRAIN_SECONDS", "GRACE_SECONDS"])
def test_an_infinite_drain_or_grace_is_rejected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cls: type[BaseSettings], name: str
) -> None:
    variable = f"{cls.model_config['env_prefix']}{name}"
    monkeypatch.setenv(variable, "inf")
    assert refusal(capsys, cls) == [f"{variable}: Input should be a finite number"]
