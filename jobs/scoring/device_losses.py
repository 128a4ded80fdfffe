"""Counts the devices that a block broke, across actors and their restarts."""

from __future__ import annotations

from collections import Counter

__all__ = ["DeviceLosses"]


class DeviceLosses:
    """Counts how often a block broke a device (a Ray actor: retries run in other processes)."""

    def __init__(self) -> None:
        self._losses: Counter[str] = Counter()

    def add(self, block: str) -> int:
        """Count one loss; return the total."""
        self._losses[block] += 1
        return self._losses[block]
