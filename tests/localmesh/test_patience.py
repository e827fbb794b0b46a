"""The pause before localmesh restarts a child."""

import pytest

from localmesh.patience import Patience

pytestmark = pytest.mark.unit


def test_the_pause_before_a_restart_doubles_up_to_its_limit() -> None:
    patience = Patience(first_restart=0.25, last_restart=1.5)
    assert [patience.restart(deaths) for deaths in (1, 2, 3, 4, 5)] == [0.25, 0.5, 1.0, 1.5, 1.5]
    assert patience.restart(1_000_000) == 1.5
