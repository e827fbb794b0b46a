"""Installs requirements.lock into `.venv`; needs only Python 3.11+ and a package index.

`python3 tools/bootstrap.py` installs the locked uv into `.tools/`, then the locked packages and the workspace members
into `.venv`; all hashes are checked. A second run returns at once if nothing changed.
`python3 tools/bootstrap.py uv ARGUMENTS…` runs that uv.

Of the settings of pip and uv, in variables and files, only those are kept that say where packages come from: index,
proxy, certificates, cache. The others say where and how the user's own projects are installed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
LOCK = ROOT / "requirements.lock"
MEMBERS = sorted(
    path.parent for folder in ("libs", "services", "tools") for path in ROOT.glob(f"{folder}/*/pyproject.toml")
)
UV_ENTRY = re.compile(r"^uv==(.*\\\n)*.*\n", re.MULTILINE)
"""The entry of uv in the lock: its version and, on continued lines, its hashes."""

PIP_KEPT = re.compile(
    r"(extra-)?index-url|no-index|find-links|trusted-host|keyring-provider|proxy|(client-)?cert"
    r"|(default-)?timeout|retries|(no-)?cache-dir|use-(feature|deprecated)|disable-pip-version-check"
)
UV_KEPT = re.compile(
    r"(default-|extra-)?index(-.+)?|no-index|find-links|insecure-host|keyring-provider|credentials-dir|native-tls"
    r"|system-certs|offline|(no-)?cache(-dir)?|link-mode|(http|request)-.+|concurrent-.+|no-progress"
)
"""The kept settings, with the names of the options."""

UV_OF_FILE = {
    "allow-insecure-host": "UV_INSECURE_HOST",
    "index-url": "UV_DEFAULT_INDEX",
    "http-proxy": "HTTP_PROXY",
    "https-proxy": "HTTPS_PROXY",
    "no-proxy": "NO_PROXY",
}
"""The variables of settings that have other names in a file of uv."""

UV_OF_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
    "PIP_CERT": "SSL_CERT_FILE",
    "PIP_CLIENT_CERT": "SSL_CLIENT_CERT",
    "PIP_PROXY": "ALL_PROXY",
}
"""What uv calls pip's settings, which it does not read."""
TOO_OLD = "aiomesh needs Python 3.11 or newer; {python} is {version}. Try: make PYTHON=python3.12 …"
NEITHER = """\
aiomesh needs pip or venv to install its packages, and this Python has neither: {python}
  Debian, Ubuntu:  apt-get install python3-venv
  Fedora:          dnf install python3-pip
  elsewhere:       {python} -m ensurepip, or a Python from python.org
then run the same command again."""


def main() -> None:
    """Brings the environment up to date, or runs uv with the given arguments."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C exits without a traceback; the next run reinstalls
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python may run this file
        sys.exit(TOO_OLD.format(python=sys.executable, version=sys.version.split()[0]))
    if sys.argv[1:2] == ["uv"]:
        os.execve(uv := find_uv(), [uv, *sys.argv[2:]], uv_environment())
    if not is_current():
        install(find_uv())


def fingerprint() -> str:
    """A digest of everything that determines the environment."""
    digest = hashlib.sha256(f"{sys.executable} {sys.version} {ROOT}".encode())
    for path in (LOCK, *(member / "pyproject.toml" for member in MEMBERS)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stamp() -> Path:
    """The file that records the installed fingerprint."""
    return VENV / "installed.sha256"


def is_current() -> bool:
    """Whether the environment matches the lock."""
    return stamp().is_file() and stamp().read_text() == fingerprint()


def find_uv() -> str:
    """The path of the locked uv, which is installed into `.tools/` if it is not there."""
    uv, installed = TOOLS / "bin" / "uv", TOOLS / "uv.lock"
    entry = UV_ENTRY.search(LOCK.read_text())
    wanted = entry[0] if entry else sys.exit(f"{LOCK} has no uv")
    if not (uv.is_file() and installed.is_file() and installed.read_text() == wanted):
        install_uv(wanted, installed)
    return str(uv)


def install_uv(wanted: str, installed: Path) -> None:
    """Installs uv into `.tools/` with venv, or with pip if Python has no venv, and records the lock's entry."""
    print("installing uv into .tools/ …", file=sys.stderr, flush=True)
    shutil.rmtree(TOOLS, ignore_errors=True)
    if importlib.util.find_spec("ensurepip") and succeeds(sys.executable, "-m", "venv", str(TOOLS)):
        pip = [str(TOOLS / "bin" / "python"), "-m", "pip", "install"]
    elif importlib.util.find_spec("pip"):
        TOOLS.mkdir()
        pip = [sys.executable, "-m", "pip", "install", "--target", str(TOOLS)]
    else:
        sys.exit(NEITHER.format(python=sys.executable))
    requirement = TOOLS / "requirement.txt"
    requirement.write_text(wanted)
    run(*pip, "--quiet", "--no-deps", "--require-hashes", "--requirement", str(requirement), env=pip_environment())
    requirement.rename(installed)


def install(uv: str) -> None:
    """Recreates `.venv` if its Python changed, and installs the lock and the members."""
    print("installing aiomesh into .venv/ …", file=sys.stderr, flush=True)
    stamp().unlink(missing_ok=True)
    env = uv_environment()
    run(uv, "venv", "--quiet", "--allow-existing", "--no-project", "--python", sys.executable, str(VENV), env=env)
    pip = (uv, "pip", "install", "--quiet", "--python", str(VENV / "bin" / "python"))
    # Compiled once here, and not by each of the processes that start at the same time.
    run(*pip, "--compile-bytecode", "--require-hashes", "--requirement", str(LOCK), env=env)
    run(
        *pip,
        "--no-deps",
        "--no-build-isolation",
        *(part for member in MEMBERS for part in ("--editable", str(member))),
        env=env,
    )
    stamp().write_text(fingerprint())


def clean_environment() -> dict[str, str]:
    """The environment without the variables that change what Python, pip and uv do."""
    kept = re.compile(r"(?!(PYTHON(?!_)|PIP_|UV_|VIRTUAL_ENV|CONDA_|__PYVENV))", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if kept.match(name)}


def pip_environment() -> dict[str, str]:
    """The environment for pip: its kept settings are variables, and it reads no files."""
    own = TOOLS / "bin" / "python"  # for a Python that has venv and no pip
    python = str(own) if own.exists() and not importlib.util.find_spec("pip") else sys.executable
    command = (python, "-m", "pip", "--verbose", "config", "list")
    env = {**clean_environment(), **kept_variables("PIP_", PIP_KEPT)}
    if "PIP_CONFIG_FILE" in os.environ:
        env["PIP_CONFIG_FILE"] = os.environ["PIP_CONFIG_FILE"]
    listed = subprocess.run(command, check=False, env=env, capture_output=True, text=True).stdout
    for section in ("global", "install", ":env:"):  # each one overrides those before it
        for name, value in re.findall(rf"^{section}\.([\w-]+)=('.*'|\".*\")$", listed, re.MULTILINE):
            if PIP_KEPT.fullmatch(name):
                env[variable("PIP_", name)] = " ".join(ast.literal_eval(value).split())
    return {**env, "PIP_CONFIG_FILE": os.devnull}


def uv_environment() -> dict[str, str]:
    """The environment for uv: its kept settings are variables, those of its files too, and it reads no files."""
    env = clean_environment()
    of_pip = pip_environment()
    env |= {uv: of_pip[pip] for pip, uv in UV_OF_PIP.items() if pip in of_pip and uv not in env}
    env["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip does; the hashes make it safe
    for path in uv_files():
        env |= dict(uv_settings(path))
    return {**env, **kept_variables("UV_", UV_KEPT), "UV_NO_CONFIG": "1"}


def uv_files() -> list[Path]:
    """The existing configuration files of uv, each one before those that override it."""
    if os.environ.get("UV_NO_CONFIG"):
        return []
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    given = os.environ.get("UV_CONFIG_FILE")
    paths = [Path(given)] if given else [folder / "uv" / "uv.toml" for folder in (Path("/etc"), home)]
    return [path for path in paths if path.is_file()]


def uv_settings(path: Path) -> Iterator[tuple[str, str]]:
    """The kept settings of a configuration file, as variables."""
    import tomllib  # noqa: PLC0415 - an older Python may import this file

    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        sys.exit(f"{path}: {error}")
    named = {"default-index": "", "index": ""}
    for index in settings.pop("index", []):
        text = f"{index['name']}={index['url']}" if "name" in index else index["url"]
        named["default-index" if index.get("default") else "index"] += f" {text}"
    for name, value in {**settings.get("pip", {}), **settings, **named}.items():
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value).strip()
        if text and (name in UV_OF_FILE or UV_KEPT.fullmatch(name)):
            yield UV_OF_FILE.get(name, variable("UV_", name)), text.lower() if isinstance(value, bool) else text


def kept_variables(prefix: str, kept: re.Pattern[str]) -> dict[str, str]:
    """The variables of the environment that are kept settings."""
    names = {
        name: name.removeprefix(prefix).lower().replace("_", "-") for name in os.environ if name.startswith(prefix)
    }
    return {name: os.environ[name] for name, option in names.items() if kept.fullmatch(option)}


def variable(prefix: str, option: str) -> str:
    """The variable of an option: `PIP_INDEX_URL` for `index-url`."""
    return prefix + option.upper().replace("-", "_")


def succeeds(*command: str) -> bool:
    """Whether the command exits with status 0; discards its output."""
    return subprocess.run(command, check=False, env=clean_environment(), capture_output=True).returncode == 0


def run(*command: str, env: dict[str, str]) -> None:
    """Runs the command; exits with its status if it fails."""
    if status := subprocess.run(command, check=False, cwd=ROOT, env=env).returncode:
        sys.exit(f"{' '.join(command[:4])} … failed with status {status}")


if __name__ == "__main__":
    main()
