"""Restarts the children whose sources change: `make up RELOAD=1`.

A file that Python cannot compile restarts nothing: the children run on until the file is saved without the error.
"""

import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

from localmesh.child import Child
from localmesh.console import Console


class Reload:
    """Watches the sources of the children."""

    def __init__(self, children: Sequence[Child], console: Console) -> None:
        self._console = console
        self._changed: dict[Child, set[Path]] = {child: set() for child in children if child.program.sources}
        """The changed files that each child does not run yet."""

    async def watch(self) -> None:
        """Restarts children until cancelled; returns at once if no child has sources to watch."""
        folders = {folder for child in self._changed for folder in child.program.sources}
        if folders:
            from watchfiles import awatch  # noqa: PLC0415 - a slow import, for RELOAD=1 only

            async for changes in awatch(*folders):
                self._handle([path for path in sorted({Path(path) for _, path in changes}) if _is_source(path)])

    def _handle(self, paths: Collection[Path]) -> None:
        touched = []
        for child, changed in self._changed.items():
            if own := {path for path in paths if any(map(path.is_relative_to, child.program.sources))}:
                changed.update(own)
                touched.append(child)
        errors = {path: error for path in self._all_changed(touched) if (error := syntax_error(path))}
        whole = [child for child in touched if not self._changed[child] & errors.keys()]
        self._report(whole, errors, [child for child in touched if child not in whole])
        for child in whole:
            self._changed[child].clear()
            child.sources_changed.set()

    def _all_changed(self, children: Sequence[Child]) -> list[Path]:
        return sorted({path for child in children for path in self._changed[child]})

    def _report(self, whole: Sequence[Child], errors: dict[Path, str], broken: Sequence[Child]) -> None:
        if whole:
            first, *others = self._all_changed(whole)
            more = f" and {len(others)} more" if others else ""
            self._console.say(f"{first.name}{more} changed: restarting {_names(whole)}")
        for path, error in errors.items():
            self._console.bad(f"{path}:{error}; save it without the error to restart {_names(broken)}")


def _is_source(path: Path) -> bool:
    """Whether the change of a path counts: not that of a temporary file, which an editor or `sed -i` renames."""
    return path.suffix == ".py" or path.exists()


def syntax_error(path: Path) -> str | None:
    """The line and the message of the syntax error in a Python file; None without an error."""
    if path.suffix != ".py" or not path.is_file():
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(path.read_bytes(), path, "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"{error.lineno}: {error.msg}"
    except ValueError as error:  # the file contains a null byte
        return f" {error}"
    return None


def _names(children: Sequence[Child]) -> str:
    return ", ".join(child.name for child in children)
