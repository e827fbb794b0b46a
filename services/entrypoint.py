"""Writes the program of an image: it runs one service, by default on every address at the port of its settings.

`python services/entrypoint.py pricing /venv/bin/service` writes it. An image's ENTRYPOINT can name neither the module
nor the port, because it expands no variables; and a shell would keep SIGTERM from the service.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

PROGRAM = """\
#!/venv/bin/python
import os
import runpy

os.environ.setdefault("{variable}", "0.0.0.0:{port}")
runpy.run_module("{service}", run_name="__main__", alter_sys=True)
"""


def main(service: str, program: Path) -> None:
    """Writes the program of a service that can be imported here."""
    settings = import_module(f"{service}.settings").Settings
    variable = f"{settings.model_config['env_prefix']}LISTEN"
    _, _, port = settings.model_fields["listen"].default.rpartition(":")
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(PROGRAM.format(service=service, variable=variable, port=port), encoding="utf-8")
    program.chmod(0o755)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
