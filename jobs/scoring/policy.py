"""The policy of a run: when it commits, when it gives up, and its exit status."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RunPolicy"]


@dataclass(frozen=True)
class RunPolicy:
    """When a run commits and when it gives up.

    Attributes:
        commit_seconds: Seconds between part files.
        max_error_rate: Share of failed rows above which a run ends with status 3. At 1 it also continues
            through an outage.
        wait_minutes: Minutes without any node that could hold an actor after which a run ends; None waits
            for as long as it takes.
        stall_minutes: Minutes in which nothing moves after which what is left is begun again.
    """

    commit_seconds: float = 30.0
    max_error_rate: float = 0.05
    wait_minutes: float | None = None
    stall_minutes: float = 30.0

    @property
    def wait_seconds(self) -> float | None:
        """Seconds after which a run that waits ends."""
        return None if self.wait_minutes is None else 60 * self.wait_minutes

    @property
    def stops_in_outage(self) -> bool:
        """Whether a run ends early when a host or bucket fails row after row."""
        return self.max_error_rate < 1
