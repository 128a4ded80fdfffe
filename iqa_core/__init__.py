"""Blind image quality scores with CLIP and antonym prompts: the method, without Ray.

>>> from iqa_core import Scorer
>>> Scorer("tiny").score("photo.jpg").score
array([...], dtype=float32)
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqa_core.scoring.scorer import Scorer, Scores

__all__ = ["Scorer", "Scores", "__version__"]

try:
    __version__ = version("distributed-iqa")
except PackageNotFoundError:  # `ray job submit --working-dir .` ships the source, uninstalled
    __version__ = "0+source"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    """Import what needs torch on first use; decode workers never use it."""
    if name in {"Scorer", "Scores"}:
        from iqa_core.scoring import scorer

        return getattr(scorer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
