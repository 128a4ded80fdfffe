"""Which distortions the benchmark, the demo and the training of `tiny` use.

The kinds themselves are in `iqa_core/images/degrade.py`.
"""

from __future__ import annotations

from iqa_core.images.degrade import DISTORTIONS as _ALL
from iqa_core.images.degrade import LEVELS, distort
from iqa_core.images.degrade import apply_level as apply

__all__ = [
    "DISTORTIONS",
    "EXTRA_KINDS",
    "KINDS",
    "LEVELS",
    "UNSEEN_KINDS",
    "apply",
    "distort",
]

DISTORTIONS = {name: kind.function for name, kind in _ALL.items() if kind.use != "view"}
# Used in training only, so that `tiny` meets more ways in which an image can be degraded.
EXTRA_KINDS = tuple(name for name in DISTORTIONS if _ALL[name].use == "training")
KINDS = tuple(kind for kind in DISTORTIONS if kind not in EXTRA_KINDS)
# Never used in training `tiny`; the benchmark reports them separately.
UNSEEN_KINDS = tuple(name for name in DISTORTIONS if _ALL[name].use == "held_out")
