"""Who may enter the state directory of a mesh."""

from pathlib import Path

import pytest

from localmesh.state import hold

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("mode", [None, 0o755, 0o777])
def test_only_its_owner_may_enter_the_state_directory(tmp_path: Path, mode: int | None) -> None:
    state = tmp_path / "above" / "state"
    if mode:
        state.mkdir(parents=True)
        state.chmod(mode)
    hold(state, print).close()
    assert state.stat().st_mode & 0o777 == 0o700
