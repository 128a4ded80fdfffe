"""`python -m tools.lock`: deploy/requirements.lock, the versions of driver, nodes and images.

All that the project and its extras for clusters depend on, directly or not, in the versions that are
installed here: a cluster gets the environment in which the tests passed. Dependency scanners and SBOM
generators read such a file.
"""

from __future__ import annotations

import platform
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "deploy" / "requirements.lock"
#: What a cluster may need: object stores, HEIC images, and boto3, by which the head starts workers on AWS.
EXTRAS = ("aws", "gcs", "heic", "s3")

HEAD = """# Made by `python -m tools.lock` in the environment of the tests: Python {python}, {platform}.
# Ray refuses nodes with unequal versions, so driver, nodes and images install exactly these.
# Images without CUDA leave out the lines that begin with nvidia, cuda or triton: deploy/Dockerfile.
"""


def applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    """Return whether a requirement counts on this platform, with these extras or without any."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def asked_for(extras: Iterable[str] = EXTRAS) -> list[str]:
    """Return the requirements of the project and of some of its extras, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(text for extra in extras for text in optional[extra])]


def closure(
    asked: Iterable[str],
    requirements: Callable[[str], Iterable[str] | None] = requires,
) -> set[str]:
    """Return the names of all that some requirements need, directly or not.

    Args:
        asked: Requirements, such as ``ray[data]>=2.60``.
        requirements: Returns what an installed package requires, as its metadata say.
    """
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(text, frozenset[str]()) for text in asked]
    while todo:
        text, extras_of_parent = todo.pop()
        requirement = Requirement(text)
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen or not applies(requirement, extras_of_parent):
            continue
        seen.add((name, extras))
        todo += [(text, extras) for text in requirements(name) or ()]
    return {name for name, _ in seen}


def read(path: Path = LOCK) -> dict[str, str]:
    """Return the versions of a lock file by name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): number for name, number in pairs}


def render() -> str:
    """Return the lock file of what is installed here."""
    head = HEAD.format(python=platform.python_version(), platform=sys.platform)
    # Without a local part such as +cpu, which only the index of one platform has.
    names = sorted(closure(asked_for()))
    return head + "".join(f"{name}=={version(name).partition('+')[0]}\n" for name in names)


if __name__ == "__main__":
    LOCK.write_text(render(), encoding="utf-8")
