"""The number of this machine's GPUs, without torch where there is none."""

from __future__ import annotations

import glob
import sys

__all__ = ["count_gpus"]

#: Device files without which torch's CUDA and ROCm find no GPU: cards, WSL, ROCm, Jetson.
_DEVICES = (
    "/dev/nvidia[0-9]*",
    "/dev/dxg",
    "/dev/kfd",
    "/dev/nvhost*",
    "/dev/nvgpu*",
    "/dev/nvmap",
)


def count_gpus(devices: tuple[str, ...] = _DEVICES) -> int:
    """Return ``torch.cuda.device_count()``, importing torch only where that could be above 0.

    Args:
        devices: Globs of the device files of GPUs on Linux.
    """
    if sys.platform == "darwin":
        return 0
    if sys.platform == "linux" and not any(map(glob.glob, devices)):
        return 0
    import torch

    return int(torch.cuda.device_count())
