"""Values of the settings of pricing that it refuses."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pricing.settings import Settings

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("setting", "value"),
    [("grace_seconds", "soon"), ("drain_seconds", "-1"), ("database_url", "mysql://x"), ("log_level", "x")],
)
def test_a_wrong_value_is_refused(setting: str, value: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings.model_validate({setting: value})
    assert [problem["loc"] for problem in refusal.value.errors()] == [(setting,)]
