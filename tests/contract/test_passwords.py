"""Passwords reach programs by standard input or files: every user of a machine sees the arguments of its processes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.repository import ROOT, texts

THIS = Path(__file__).name
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
RECORDER = """\
#!/bin/sh
file=$(mktemp "$CALLS/XXXXXX")
printf '%s\\n' "$*" >"$file"
cat >"$file.input"
cat "$file.input"
"""
"""A kubectl that records its arguments and its input, and prints its input."""

IN_ARGUMENTS = re.compile(
    r"--from-literal"
    r"|(?:docker|podman) run .*(?:-e|--env)[ =]\S*(?:PASSWORD|SECRET|TOKEN|_URL)=\S"
    r"|(?:psql|pg_dump|pg_restore)\b.*\w+://\w+:[^@\s]+@"
    r"|(?:psql|kubectl)\b.*(?:--set|-v|--variable)[ =](?:new|password)="
    r"|\bmake\b.* \w+=\w+://\w+:[^@\s]+@"
    r"|--password[ =]\S"
)


def test_no_command_has_a_password_in_its_arguments() -> None:
    lines = [(path, line) for path, text in texts().items() for line in text.splitlines() if path.name != THIS]
    assert not [(path, line) for path, line in lines if IN_ARGUMENTS.search(line)]


@pytest.mark.parametrize(
    "line",
    [
        'kubectl create secret generic one --from-literal=password="$new"',
        "docker run --rm -e PGPASSWORD=x postgres",
        "psql postgresql://one:two@localhost/three",
        'kubectl exec -i postgres-0 -- psql --quiet --set=new="$new"',
        "make up PRICING_DATABASE_URL=postgresql://one:two@localhost/three",
    ],
)
def test_a_password_in_arguments_is_found(line: str) -> None:
    assert IN_ARGUMENTS.search(line)


def commands(after: str) -> str:
    """The first block of commands in docs/operations.md after a text."""
    found = re.search(r"^ *```sh\n(.*?)^ *```$", OPERATIONS.split(after, 1)[1], re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def run(script: str, folder: Path) -> dict[str, str]:
    """The input of each kubectl that a script starts, by its arguments."""
    programs, calls = folder / "bin", folder / "calls"
    programs.mkdir()
    calls.mkdir()
    (programs / "kubectl").write_text(RECORDER)
    (programs / "kubectl").chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(calls)}
    subprocess.run(["/bin/sh", "-eu", "-c", script], env=environment, stdin=subprocess.DEVNULL, check=True, timeout=10)
    return {path.read_text(): path.with_suffix(".input").read_text() for path in calls.iterdir() if not path.suffix}


def test_the_first_passwords_are_different_and_come_by_standard_input(tmp_path: Path) -> None:
    calls = run(commands("Create the namespace first"), tmp_path)
    passwords = {call: given for call, given in calls.items() if " create secret " in call}
    assert len(passwords) == len(set(passwords.values())) >= 3
    for call, given in passwords.items():
        assert call.endswith("--from-file=password=/dev/stdin\n")
        assert re.fullmatch(r"\S{32}", given), "without the end of the line"
        assert not [other for other in calls if given in other]
