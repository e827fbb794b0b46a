"""Writes what is generated: the protobuf code, the lists of services, and documents; says which files changed."""

from __future__ import annotations

from pathlib import Path

from tools import configuration_docs, error_docs, protos, service_lists

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Writes everything and prints a line for each file that changed."""
    before = _code()
    protos.generate(protos.GENERATED)
    protos.describe_transcoding(protos.TRANSCODED)
    after = _code()
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    for path, text in generated_texts().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.add(path)
    for path in sorted(changed):
        print(f"{'wrote' if path.exists() else 'deleted'} {path.relative_to(ROOT)}")
    if not changed:
        print("nothing changed")


def generated_texts() -> dict[Path, str]:
    """The text of every generated file that is no code, as it has to be."""
    return service_lists.generated(ROOT) | configuration_docs.generated(ROOT) | error_docs.generated(ROOT)


def _code() -> dict[Path, bytes]:
    files = (path for path in protos.GENERATED.rglob("*") if path.suffix != ".pyc")
    return {path: path.read_bytes() for path in (*files, protos.TRANSCODED) if path.is_file()}


if __name__ == "__main__":
    main()
