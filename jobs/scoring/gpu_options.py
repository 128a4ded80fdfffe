"""Options that only runs on GPUs take, and what they exclude."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_core.errors import InputError

if TYPE_CHECKING:
    from ..config import ImageOptions
    from .pool import ActorPool

__all__ = ["check_gpu_options"]


def check_gpu_options(
    config: ImageOptions, pool: ActorPool, *, crops: int = 1, views: int = 0
) -> None:
    """Check ``--compile`` and ``--decode gpu`` against the other options.

    Args:
        config: The options.
        pool: The scoring actors.
        crops: Views of each image that are scored.
        views: Degraded copies of each image.

    Raises:
        InputError: If the run scores on CPUs, or an option needs pixels of other sizes or in other places.
    """
    asked = {"--compile": config.compile, "--decode gpu": config.decode == "gpu"}
    for name in [name for name, is_asked in asked.items() if is_asked]:
        if not pool.gpus:
            raise InputError(
                f"{name} is for GPUs, and this run scores on CPUs: leave it out, or wait for GPUs with "
                "--gpus N"
            )
        if config.resolution == "native":
            raise InputError(
                f"{name} needs images of one size, and with --resolution native each keeps its own: "
                "leave one of the two out"
            )
    need_pixels = {
        "--crops": crops > 1,
        "--views": views > 0,
        "--dedupe": config.dedupe,
        "--descriptors": config.descriptors,
    }
    if config.decode == "gpu" and any(need_pixels.values()):
        names = ", ".join(name for name, is_asked in need_pixels.items() if is_asked)
        raise InputError(
            f"--decode gpu does not go with {names}, which need an image's pixels where it is fetched: "
            "leave it out, or them"
        )
