"""Invalid values of inventory's settings."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from inventory.settings import Settings

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("setting", "value"),
    [("database_url", "mysql://host/x"), ("sweep_seconds", "0"), ("reservation_ttl_seconds", "inf")],
)
def test_an_invalid_value_is_rejected(setting: str, value: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings.model_validate({setting: value})
    assert [problem["loc"] for problem in refusal.value.errors()] == [(setting,)]
