"""Installs the program of a gateway from its own lock, and prepares the folder that it runs in."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from localmesh.gateways.gateway import LOCK
from localmesh.services import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from localmesh.gateways.gateway import Addresses, Gateway

UV = (sys.executable, str(ROOT / "tools" / "bootstrap.py"), "uv")
"""The uv of the project, which takes only the settings that say where packages come from."""

INSTALL = ("pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes")
NOT_FOR_IT = ("requirements.*", "kustomization.yaml")
"""Files of a configuration's folder that the program does not read."""

FRAME = re.compile(r"[^\x00-\x7F]+")
"""What uv draws around its messages."""


class GatewayError(Exception):
    """A gateway cannot run; the text says why."""


def install(gateway: Gateway, folder: Path, report: Callable[[str], None]) -> None:
    """Installs the program into a folder, if it is missing or its lock has changed; reports that: it takes seconds.

    Raises:
        GatewayError: there is no wheel for this platform, or no index.
    """
    lock, stamp, executable = gateway.configuration / LOCK, folder / LOCK, folder / gateway.name
    if executable.exists() and stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
        return
    report(f"installing {gateway.name} into {folder} …")
    shutil.rmtree(folder, ignore_errors=True)
    _run_uv(gateway.name, *INSTALL, "--target", str(folder / "packages"), "--requirement", str(lock))
    program = next((folder / "packages").glob(gateway.program), None)
    if program is None:
        raise GatewayError(f"GATEWAY={gateway.name}: its package has no program for this platform")
    executable.symlink_to(program)
    shutil.copy(lock, stamp)


def _run_uv(name: str, *arguments: str) -> None:
    python = ("--python", sys.executable)
    run = subprocess.run((*UV, *arguments, *python), check=False, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        why = " ".join(FRAME.sub(" ", run.stderr).split())
        raise GatewayError(f"GATEWAY={name} cannot be installed: {why}")


def write(gateway: Gateway, addresses: Addresses, folder: Path) -> None:
    """Fills a folder with the gateway's configuration and its addresses."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(gateway.configuration, folder, ignore=shutil.ignore_patterns(*NOT_FOR_IT))
    for name, text in gateway.files(folder, addresses).items():
        (folder / name).write_text(text, encoding="utf-8")
