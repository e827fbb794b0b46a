"""All tests of this folder are contract tests."""

import shutil
from pathlib import Path

import pytest

from tests.repository import ROOT

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks them."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("contract")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the files from which the lists of services are generated."""
    for name in ("deploy", "services"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("src"))
    shutil.copy(ROOT / "skaffold.yaml", tmp_path)
    return tmp_path
