"""A hanging test fails at its time limit and shows its tasks, and the other tests continue."""

from __future__ import annotations

import pytest

from tests.harness.inner_pytest import FAILED, reports_on

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The reports on hanging tests, with a limit of one second."""
    folder = tmp_path_factory.mktemp("reports")
    return reports_on("hanging.py", folder, "--timeout=1", "-n2", "--dist=load")


@pytest.mark.parametrize(
    ("name", "stack"),
    [
        ("test_in_an_await", "in wait_for_ever"),
        ("test_in_a_callback", "in wait"),
        ("test_in_a_callback_that_catches_everything", "in wait_for_ever"),
        ("test_in_the_loop", "time.sleep(1000)"),
        ("test_in_hypothesis", "in wait_for_ever"),
        ("test_without_a_loop", "time.sleep(1000)"),
    ],
)
def test_a_hanging_test_fails_with_the_stack_of_its_tasks(reports: dict[str, str], name: str, stack: str) -> None:
    report = reports[name]
    assert "failure: Failed: longer than 1 s" in report
    assert stack in report
    assert (f"in {name}" in report) or "hypothesis" in name
    assert ("~~~ task" in report) == (name != "test_without_a_loop")


@pytest.mark.parametrize("name", ["test_in_the_teardown", "test_in_the_teardown_of_a_failure"])
def test_a_hanging_fixture_fails_and_the_other_fixtures_are_closed(reports: dict[str, str], name: str) -> None:
    report = reports[name]
    assert 'error: failed on teardown with "Failed: longer than 1 s' in report
    assert "in endless" in report
    assert "in wait_for_ever" in report
    assert "the other fixture was closed" in report


def test_a_test_that_blocks_signals_is_reported(reports: dict[str, str]) -> None:
    assert "test_that_no_alarm_reaches" in reports["test_that_no_alarm_reaches"]


def test_the_limit_of_a_marker_applies_and_the_other_tests_continue(reports: dict[str, str]) -> None:
    assert not FAILED.search(reports["test_with_a_longer_limit"])
