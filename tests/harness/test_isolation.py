"""A unit test that opens a connection or starts a process fails."""

from __future__ import annotations

import pytest

from tests.harness.inner_pytest import FAILED, reports_on

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return reports_on("reaching_out.py", tmp_path_factory.mktemp("reports"), "-n0")


@pytest.mark.parametrize(
    ("name", "attempt"),
    [
        ("test_a_connection", "socket.getaddrinfo"),
        ("test_a_server", "socket.bind"),
        ("test_a_process", "subprocess.Popen"),
        ("test_a_process_of_the_loop", "subprocess.Popen"),
        ("test_a_channel", "grpc.aio.insecure_channel"),
        ("test_a_channel_whose_name_was_imported", "grpc.insecure_channel"),
        ("test_a_grpc_server", "grpc.aio.server"),
    ],
)
def test_a_unit_test_fails_when_it_leaves_its_process(reports: dict[str, str], name: str, attempt: str) -> None:
    assert f"failure: Failed: a unit test must not cause {attempt}" in reports[name]


def test_a_unit_test_that_catches_the_failure_fails_at_its_end(reports: dict[str, str]) -> None:
    report = reports["test_a_connection_whose_failure_is_caught"]
    assert "error: failed on teardown" in report
    assert "socket.getaddrinfo" in report


def test_files_threads_and_an_event_loop_are_allowed(reports: dict[str, str]) -> None:
    assert not FAILED.search(reports["test_only_files_and_a_loop"])
