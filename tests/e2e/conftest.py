"""A mesh that the files of a test process share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.local_mesh import LocalMesh

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def shared_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """A mesh as `make up` starts it, for tests that stop and restart nothing."""
    with LocalMesh(tmp_path_factory.mktemp("state")).running() as running:
        yield running
