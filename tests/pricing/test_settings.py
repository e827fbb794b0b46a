"""Invalid values of pricing's settings."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pricing.settings import Settings

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("setting", "value"),
    [("grace_seconds", "soon"), ("drain_seconds", "-1"), ("database_url", "mysql://x"), ("log_level", "x")],
)
def test_an_invalid_value_is_rejected(setting: str, value: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings.model_validate({setting: value})
    assert [problem["loc"] for problem in refusal.value.errors()] == [(setting,)]
