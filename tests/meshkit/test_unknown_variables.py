"""A variable with the prefix of a process that is not one of its settings logs a warning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshkit.unknown_variables import warn_of_unknown_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.unit


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SHOP_")

    listen: str = ""
    database_url: str = ""
    log_level: str = ""


def warnings(
    environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> list[tuple[str, str]]:
    monkeypatch.setattr("os.environ", dict(environ))
    warn_of_unknown_variables("shop", Settings)
    return [(record.levelname, record.message) for record in caplog.records]


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("SHOP_LISTN", "did you mean SHOP_LISTEN?"),
        ("SHOP_DB_URL", "did you mean SHOP_DATABASE_URL?"),
        ("SHOP_LOGLEVEL", "did you mean SHOP_LOG_LEVEL?"),
        ("shop_loglevel", "did you mean SHOP_LOG_LEVEL?"),
        ("SHOP_LISTEN_PORT", "did you mean SHOP_LISTEN?"),
        ("SHOP_PRT", "did you mean SHOP_PORT of `make up`?"),
        ("SHOP_Q", "`python -m shop --help` lists the settings"),
    ],
)
def test_an_unknown_variable_logs_a_warning_with_the_nearest_setting_but_not_its_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, advice: str
) -> None:
    expected = [("WARNING", f"{variable} is not a setting and is ignored; {advice}")]
    assert warnings({variable: "s3cret"}, monkeypatch, caplog) == expected


def test_settings_and_foreign_variables_log_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"SHOP_LISTEN": "a", "shop_log_level": "b", "PATH": "/", "SHOPPING_LIST": "c", "OTHER_LISTN": "d"}
    assert not warnings(environ, monkeypatch, caplog)


def test_the_port_variable_of_make_up_logs_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert not warnings({"SHOP_PORT": "50051", "SHOP_GRPC_PORT": "50050"}, monkeypatch, caplog)


@pytest.mark.parametrize("service", ["SHOP", "SHOP_DB"])
def test_the_service_links_of_kubernetes_log_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, service: str
) -> None:
    links = {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "50051",
        f"{service}_SERVICE_PORT_GRPC": "50051",
        f"{service}_PORT": "tcp://10.0.0.1:50051",
        f"{service}_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        f"{service}_PORT_50051_TCP_PROTO": "tcp",
        f"{service}_PORT_50051_TCP_PORT": "50051",
        f"{service}_PORT_50051_TCP_ADDR": "10.0.0.1",
    }
    assert not warnings(links, monkeypatch, caplog)
