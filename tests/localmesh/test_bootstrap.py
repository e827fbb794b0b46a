"""tools/bootstrap.py, which every target of the Makefile runs first."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.contract.locks import read_lock
from tests.repository import ROOT
from tools.bootstrap import UV_ENTRY, pip_environment, uv_environment

if TYPE_CHECKING:
    from pathlib import Path

LOCK = (ROOT / "requirements.lock").read_text()
MEMBER = """\
[project]
name = "shop"
version = "1"

[build-system]
requires = ["uv_build"]
build-backend = "uv_build"
"""

ELSEWHERE = {
    "PIP_USER": "1",
    "PIP_TARGET": "/nowhere/target",
    "PIP_PREFIX": "/nowhere/prefix",
    "PIP_PYTHON": "/nowhere/python",
    "PIP_DRY_RUN": "1",
    "PIP_NO_BINARY": ":all:",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_CONSTRAINT": "/nowhere/constraints.txt",
    "PIP_REPORT": "/nowhere/report.json",
    "UV_TARGET": "/nowhere/target",
    "UV_SYSTEM_PYTHON": "1",
    "UV_PYTHON": "3.99",
    "UV_NO_BINARY": "1",
    "UV_NO_BUILD": "1",
    "UV_EXCLUDE_NEWER": "2001-01-01",
    "UV_REQUIRED_VERSION": "0.0.1",
    "UV_WORKING_DIRECTORY": "/nowhere",
    "UV_PROJECT_ENVIRONMENT": "/nowhere/venv",
    "VIRTUAL_ENV": "/nowhere/venv",
    "CONDA_PREFIX": "/nowhere/conda",
    "PYTHONWARNINGS": "error",
}
"""Variables of a shell that install the user's own projects elsewhere or otherwise."""

PIP_CONF = "[global]\nuser = true\nrequire-virtualenv = true\n[install]\ntarget = /nowhere\nno-binary = :all:\n"
UV_TOML = 'exclude-newer = "2001-01-01"\nno-binary = true\n[pip]\nsystem = true\ntarget = "/nowhere"\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's files of settings; no variable sets any."""
    for name in os.environ:
        if name.startswith(("PIP_", "UV_", "XDG_", "SSL_CERT_FILE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("pip", "uv"):
        (tmp_path / ".config" / name).mkdir(parents=True)
    return tmp_path


def project(folder: Path) -> Path:
    """A project of one package with the bootstrap, and a lock of uv and the build backend."""
    source = folder / "libs" / "shop" / "src" / "shop"
    source.mkdir(parents=True)
    (source / "__init__.py").touch()
    (folder / "libs" / "shop" / "pyproject.toml").write_text(MEMBER)
    (folder / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "bootstrap.py", folder / "tools")
    entries = [entry for entry in LOCK.split("\n") if entry]
    starts = [number for number, line in enumerate(entries) if line.startswith(("uv==", "uv-build=="))]
    lines = (f"{line}\n" for line in entries[starts[0] :] if line.startswith(("uv", "    ")))
    text = "".join(lines)
    (folder / "requirements.lock").write_text(text[: text.index("uvicorn")])
    return folder


@pytest.mark.timeout(90)
def test_settings_of_where_and_how_to_install_change_nothing(tmp_path: Path) -> None:
    clone = project(tmp_path / "clone")
    old_uv = tmp_path / "bin" / "uv"
    old_uv.parent.mkdir()
    old_uv.write_text("#!/bin/sh\necho uv 0.0.1\nexit 2\n")
    old_uv.chmod(0o755)
    for name, text in {"pip/pip.conf": PIP_CONF, "uv/uv.toml": UV_TOML, "modules/json.py": "1 / 0\n"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    environment = {**os.environ, **ELSEWHERE, "PATH": f"{old_uv.parent}:{os.environ['PATH']}"}
    environment |= {"PIP_CONFIG_FILE": str(tmp_path / "pip" / "pip.conf")}
    environment |= {"UV_CONFIG_FILE": str(tmp_path / "uv" / "uv.toml")}
    command = [sys.executable, str(clone / "tools" / "bootstrap.py")]
    installed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (installed.returncode, installed.stdout) == (0, ""), installed.stderr
    python = clone / ".venv" / "bin" / "python"
    assert subprocess.run([python, "-c", "import shop"], check=False).returncode == 0


def test_index_proxy_and_certificates_of_pip_are_kept_and_uv_uses_them(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".config" / "pip" / "pip.conf").write_text(
        "[global]\nindex-url = https://global.example\ncert = /ca.pem\nuser = true\n"
        "extra-index-url =\n  https://one.example\n  https://two.example\n"
        "[install]\nindex-url = https://install.example\n[freeze]\nproxy = http://other.example\n"
    )
    monkeypatch.setenv("PIP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("PIP_TARGET", "/nowhere")
    pip, uv = pip_environment(), uv_environment()
    assert {name: value for name, value in pip.items() if name.startswith("PIP_")} == {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "https://install.example",
        "PIP_EXTRA_INDEX_URL": "https://one.example https://two.example",
        "PIP_CERT": "/ca.pem",
        "PIP_PROXY": "http://proxy.example:3128",
    }
    assert (
        uv.items()
        >= {
            "UV_DEFAULT_INDEX": "https://install.example",
            "UV_INDEX": "https://one.example https://two.example",
            "SSL_CERT_FILE": "/ca.pem",
            "ALL_PROXY": "http://proxy.example:3128",
        }.items()
    )


def test_index_proxy_and_certificates_of_uv_are_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".config" / "uv" / "uv.toml").write_text(
        'native-tls = true\nhttps-proxy = "http://proxy.example"\nallow-insecure-host = ["a.example", "b.example"]\n'
        'offline = false\nno-build = true\n[pip]\ntarget = "/nowhere"\nkeyring-provider = "subprocess"\n'
        '[[index]]\nurl = "https://default.example"\ndefault = true\n'
        '[[index]]\nname = "mine"\nurl = "https://mine.example"\n'
    )
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "300")
    monkeypatch.setenv("UV_KEYRING_PROVIDER", "disabled")
    monkeypatch.setenv("UV_SYSTEM_PYTHON", "1")
    found = uv_environment()
    assert {name: value for name, value in found.items() if name.startswith("UV_")} == {
        "UV_DEFAULT_INDEX": "https://default.example",
        "UV_INDEX": "mine=https://mine.example",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "a.example b.example",
        "UV_HTTP_TIMEOUT": "300",
        "UV_KEYRING_PROVIDER": "disabled",
        "UV_NATIVE_TLS": "true",
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "false",
    }
    assert found["HTTPS_PROXY"] == "http://proxy.example"


def test_an_invalid_file_of_uv_ends_the_start_with_one_line(home: Path) -> None:
    (home / ".config" / "uv" / "uv.toml").write_text("index-url =\n")
    with pytest.raises(SystemExit, match=r"uv\.toml: "):
        uv_environment()


def test_the_lock_has_the_uv_that_installs_it() -> None:
    entry = UV_ENTRY.search(LOCK)
    assert entry
    [pin] = read_lock(entry[0])
    assert (pin.name, len(pin.hashes) > 10) == ("uv", True)


def test_an_interrupt_during_the_installation_exits_without_a_traceback(tmp_path: Path) -> None:
    clone = project(tmp_path / "clone")
    slow_uv = clone / ".tools" / "bin" / "uv"
    slow_uv.parent.mkdir(parents=True)
    slow_uv.write_text("#!/bin/sh\necho started\nexec sleep 60\n")
    slow_uv.chmod(0o755)
    entry = UV_ENTRY.search(LOCK)
    assert entry
    (clone / ".tools" / "uv.lock").write_text(entry[0])
    installation = subprocess.Popen(
        [sys.executable, str(clone / "tools" / "bootstrap.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert installation.stdout
    assert installation.stdout.readline() == "started\n"
    os.killpg(installation.pid, signal.SIGINT)
    _, errors = installation.communicate()
    assert (installation.returncode, errors) == (-signal.SIGINT, "installing aiomesh into .venv/ …\n")
