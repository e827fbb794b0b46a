"""Invalid values of the edge's settings."""

from __future__ import annotations

import pytest

from api_edge.settings import Settings
from meshkit.config import load_settings

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EDGE_LISTEN", ""),
        ("EDGE_LISTEN", "8080"),
        ("EDGE_LISTEN", "127.0.0.1:"),
        ("EDGE_LISTEN", "127.0.0.1:x"),
        ("EDGE_LISTEN", "127.0.0.1:-1"),
        ("EDGE_LISTEN", "127.0.0.1:65536"),
        ("EDGE_LISTEN", "127.0.0.1:\u0661"),
        ("EDGE_INVENTORY_TARGET", ""),
        ("EDGE_PRICING_TARGET", ""),
        ("EDGE_TRACE_URL", "http://traces/{trace_id}\nX-Evil: 1"),
        ("EDGE_TRACE_URL", "http://traces/{trace_id}?\u00e4"),
        ("EDGE_ORDER_RETENTION_SECONDS", "59"),  # a purge would delete the quote of an order that is just being placed
        ("EDGE_DRAIN_SECONDS", "-1"),
        ("EDGE_DRAIN_SECONDS", "inf"),
        ("EDGE_DRAIN_SECONDS", "soon"),
        ("EDGE_GRACE_SECONDS", "0"),
        ("EDGE_GRACE_SECONDS", "nan"),
        ("EDGE_TELEMETRY", "none"),
        ("EDGE_LOG_LEVEL", "LOUD"),
    ],
)
def test_an_invalid_setting_ends_the_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as end:
        load_settings(Settings)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{variable}: ")
