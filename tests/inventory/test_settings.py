"""Values of the settings of inventory that it refuses."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from inventory.settings import Settings

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("setting", "value"),
    [("database_url", "mysql://host/x"), ("sweep_seconds", "0"), ("reservation_ttl_seconds", "inf")],
)
def test_a_wrong_value_is_refused(setting: str, value: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings.model_validate({setting: value})
    assert [problem["loc"] for problem in refusal.value.errors()] == [(setting,)]
