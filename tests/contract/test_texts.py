"""The texts of this repository are portable: they name no specific machine, and their links resolve."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.repository import ROOT, texts

FOREIGN = {
    "a path of one machine": r"(?<![\w.~-])/(?:work|root|Users|home/\w+)/",
    "a package index": r"\b(?:pypi\.org|pythonhosted\.org)\b|https?://[^\s'\"`)]+/simple\b",
    "an option that names a package index": r"--(?:extra-|default-)?index(?:-url)?\b",
}
SHOW_IT = {Path(__file__), Path(__file__).with_name("test_locks.py")}
"""Files that contain such texts as examples."""

FOLDERS = ("work", "root")

DOCUMENTS = {path: text for path, text in texts().items() if path.suffix == ".md"}

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def foreign(text: str) -> list[str]:
    """The parts of a text that exist on one machine only."""
    return [f"{what}: {found[0]}" for what, pattern in FOREIGN.items() for found in re.finditer(pattern, text)]


def without_blocks(text: str) -> str:
    """A Markdown text without code blocks, which contain no headings and no links."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def broken_links(path: Path, text: str) -> list[str]:
    """The broken internal links of a document."""
    prose = re.sub(r"`[^`\n]*`", "", without_blocks(text))
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [link for link in links if not re.match(r"https?://|mailto:", link) and not resolves(path, text, link)]


def resolves(path: Path, text: str, link: str) -> bool:
    file, _, anchor = link.partition("#")
    if not file:
        return anchor in anchors(text)
    target = (path.parent / file).resolve()
    return target.exists() and target.is_relative_to(ROOT) and (not anchor or anchor in anchors(target.read_text()))


def anchors(text: str) -> set[str]:
    """GitHub's anchors of the headings of a Markdown text."""
    headings = re.findall(r"^#+ +(.+)$", without_blocks(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_no_file_names_a_path_of_one_machine_or_a_package_index() -> None:
    found = {path: foreign(text) for path, text in texts().items() if path not in SHOW_IT}
    assert len(found) > 100
    assert not {path: what for path, what in found.items() if what}


@each_document
def test_every_link_inside_the_repository_resolves(path: Path) -> None:
    assert not broken_links(path, DOCUMENTS[path])


def test_the_changelog_has_an_unreleased_section() -> None:
    changelog = ROOT / "CHANGELOG.md"
    assert re.search(r"^## \[?Unreleased\b", DOCUMENTS[changelog], re.MULTILINE)


@pytest.mark.parametrize(
    "text",
    [
        f"see /{FOLDERS[0]}/notes.md",
        'open("/home/anna/aiomesh")',
        f"(/{FOLDERS[1]}/.cache)",
        "from https://pypi.org/project/grpcio",
        "https://mirror.example/simple",
        "uv lock --index-url X",
    ],
)
def test_paths_and_indexes_of_one_machine_are_reported(text: str) -> None:
    assert foreign(text)


@pytest.mark.parametrize(
    "text", ["network/root/work", "src/work/x", "/workers/", "a/root/", "--indexes", f"~/{FOLDERS[1]}/x"]
)
def test_portable_text_is_not_reported(text: str) -> None:
    assert not foreign(text)


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("Makefile", True),
        ("services/", True),
        ("services/inventory/pyproject.toml", True),
        ("#how-it-works-2-ways", True),
        ("https://grpc.io", True),
        ("services/inventory/missing.py", False),
        ("../outside.md", False),
        ("#no-such-heading", False),
    ],
)
def test_a_link_resolves_only_to_an_existing_target(link: str, *, found: bool) -> None:
    text = f"# How it works: 2 ways\n\n```\n# no heading\n[code](missing)\n```\n`[code](missing)` and [a link]({link})."
    assert broken_links(ROOT / "README.md", text) == ([] if found else [link])
