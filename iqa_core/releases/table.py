"""The table of releases: name -> how to read it.

A release is a file of this folder that defines ``RELEASE``, and a line here. Other packages add theirs
by ``RELEASES["name"] = Release(...)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.releases import (
    agiqa1k,
    agiqa3k,
    clive,
    csiq,
    flive,
    kadid10k,
    koniq10k,
    live,
    pipal,
    spaq,
    tid2013,
)

if TYPE_CHECKING:
    from iqa_core.releases.release import Release

__all__ = ["RELEASES"]

#: The releases by name, in the order of their help.
RELEASES: dict[str, Release] = {
    "koniq10k": koniq10k.RELEASE,
    "clive": clive.RELEASE,
    "spaq": spaq.RELEASE,
    "flive": flive.RELEASE,
    "kadid10k": kadid10k.RELEASE,
    "tid2013": tid2013.RELEASE,
    "csiq": csiq.RELEASE,
    "live": live.RELEASE,
    "agiqa1k": agiqa1k.RELEASE,
    "agiqa3k": agiqa3k.RELEASE,
    "pipal": pipal.RELEASE,
}
