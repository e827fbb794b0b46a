"""What editors read: the configurations of VS Code and of development containers."""

from __future__ import annotations

import json

from tests.repository import ROOT


def test_the_debugger_asks_for_the_service_and_lists_none() -> None:
    launch = json.loads((ROOT / ".vscode" / "launch.json").read_text())
    (service,) = launch["inputs"]
    assert service.keys() == {"id", "type", "description"}
    assert (service["id"], service["type"]) == ("service", "promptString")


def test_a_development_container_is_installed_by_make() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make install"
