"""Peak memory of this process, which can be measured anew; `ru_maxrss` begins with the parent's."""

from __future__ import annotations

from pathlib import Path


def reset_peak() -> None:
    """Forget the peak so far."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> float:
    """Return the most that this process had in memory since it started or the peak was reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
