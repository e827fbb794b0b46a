"""Runs tests that must fail, with the settings of this project, and reads their reports."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.repository import ROOT

HERE = Path(__file__).parent
FAILED = re.compile("^(failure|error): ", re.MULTILINE)
"""Matches only the report of a test that failed."""


def reports_on(module: str, folder: Path, *options: str) -> dict[str, str]:
    """The reports on the tests of a module in this folder, by name: failures, errors and output."""
    xml = folder / "report.xml"
    always = ("-p", "no:randomly", "-p", "no:cacheprovider", "-o", "junit_logging=all", f"--junitxml={xml}")
    command = (sys.executable, "-m", "pytest", str(HERE / module), *always, *options)
    subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
    found: dict[str, str] = {}
    for case in ET.parse(xml).iter("testcase"):  # noqa: S314 # a test that fails twice has two cases
        texts = [f"{part.tag}: {part.get('message')}\n{part.text}\n" for part in case]
        found[case.attrib["name"]] = found.get(case.attrib["name"], "") + "".join(texts)
    return found
