"""The REST API matches the committed snapshot, so every change of it is visible and deliberate."""

from __future__ import annotations

from difflib import unified_diff

import pytest
from fastapi import FastAPI

from tests.contract.openapi import SNAPSHOT, document, format_document

RENEW = (
    "The REST API has changed. If that is meant: .venv/bin/python -m tests.contract.openapi, and commit what it writes."
)


def differences(old: str, new: str) -> str:
    return "\n".join(unified_diff(old.splitlines(), new.splitlines(), "openapi.json", "the edge", lineterm="", n=5))


async def test_the_rest_api_matches_the_snapshot() -> None:
    if found := differences(SNAPSHOT.read_text(encoding="utf-8"), await document()):
        pytest.fail(f"{RENEW}\n\n{found}", pytrace=False)


def test_a_changed_default_is_a_difference() -> None:
    def of_page_size(size: int) -> str:
        app = FastAPI(title="shop")
        app.add_api_route("/products", lambda page_size=size: page_size)
        return format_document(app)

    found = differences(of_page_size(5), of_page_size(6))
    changed = {line.replace(" ", "") for line in found.splitlines() if line.startswith(("+  ", "-  "))}
    assert changed == {'-"default":5,', '+"default":6,'}
    assert not differences(of_page_size(5), of_page_size(5))
