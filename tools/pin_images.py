"""Writes the digests of pushed images into the production overlay: `make pin-images BUILDS=builds.json`.

The file is what `skaffold build --file-output` writes (https://skaffold.dev/docs/references/cli/#skaffold-build): a
list `builds` with an `imageName` and a `tag` for each image. The tag of a pushed image ends with its digest.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from localmesh.services import read_services
from tools import service_lists

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
BUILD = "skaffold build --profile production --default-repo REGISTRY --file-output builds.json"
REFERENCE = re.compile(r"(?P<name>[\w.-]+(?::\d+)?(?:/[\w.-]+)*)(?::[\w.-]+)?@(?P<digest>sha256:[0-9a-f]{64})")
"""An image's name, its tag, which is not used, and its digest."""


class CannotPin(Exception):
    """The images cannot be pinned; the text says why and what to do."""


def main() -> None:
    """Writes the digests from the file named on the command line, and prints each."""
    parser = argparse.ArgumentParser(prog="make pin-images", description=__doc__)
    parser.add_argument("builds", help="the output of `skaffold build --file-output`")
    try:
        references = pin(parser.parse_args().builds, ROOT)
    except CannotPin as error:
        sys.exit(f"make pin-images: {error}")
    for reference in references:
        print(f"pinned {reference}")


def pin(builds: str, root: Path) -> list[str]:
    """Writes the digests of all our images into the production overlay below `root`; returns their references.

    Raises:
        CannotPin: the file cannot be read, or an image is missing in it or has no valid digest. Nothing is written.
    """
    pushed = read_builds(builds)
    names = [service_lists.image_name(service) for service in read_services(root)]
    if missing := [name for name in names if name not in pushed]:
        raise CannotPin(f"{builds} has no build of {', '.join(missing)}: build all images with `{BUILD}`")
    found = [parse(name, pushed[name]) for name in names]
    items = [
        service_lists.pinned_image(name, *one.group("name", "digest")) for name, one in zip(names, found, strict=True)
    ]
    overlay = root / service_lists.PRODUCTION
    overlay.write_text(service_lists.with_list(overlay.read_text(encoding="utf-8"), "images", items), encoding="utf-8")
    return ["@".join(one.group("name", "digest")) for one in found]


def read_builds(path: str) -> Mapping[str, str]:
    """The tag of each build in a file of Skaffold, by the name of its image.

    Raises:
        CannotPin: there is no such file, or it is not such a file.
    """
    if not path:
        raise CannotPin(f"name a file, as in `make pin-images BUILDS=builds.json`, which `{BUILD}` writes")
    try:
        return {one["imageName"]: one["tag"] for one in json.loads(Path(path).read_bytes())["builds"]}
    except OSError as error:
        raise CannotPin(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        raise CannotPin(f"{path} is not the output of `skaffold build --file-output`") from None


def parse(name: str, tag: object) -> re.Match[str]:
    """The parts of a pushed image's tag.

    Raises:
        CannotPin: it has no valid digest.
    """
    if found := re.fullmatch(REFERENCE, str(tag)):
        return found
    raise CannotPin(f"{name}: {tag!r} does not end with @sha256: and 64 hexadecimal digits: push it, with `{BUILD}`")


if __name__ == "__main__":
    main()
