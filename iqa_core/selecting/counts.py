"""What a selection left out, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Counts", "Left"]


@dataclass(frozen=True)
class Left:
    """Rows that went for one reason.

    Attributes:
        reason: Such as ``--top 20%``.
        rows: Their number.
        detail: More on them, in words; may be empty.
    """

    reason: str
    rows: int
    detail: str = ""


@dataclass(frozen=True)
class Counts:
    """What went and why.

    Attributes:
        rows: Rows of the first output.
        left: What went, in the order of the steps.
        kept: Rows that are selected.
        threshold: Rank of the last row that a quota without groups keeps; None else.
    """

    rows: int
    left: list[Left] = field(default_factory=list)
    kept: int = 0
    threshold: float | None = None

    def lines(self) -> list[str]:
        """Return them as lines of text."""
        width = len(f"{self.rows:,}")
        lines = [f"{self.rows:>{width},} rows"]
        for one in self.left:
            detail = f" ({one.detail})" if one.detail else ""
            lines.append(f"{one.rows:>{width},} left out: {one.reason}{detail}")
        return [*lines, f"{self.kept:>{width},} selected"]

    def document(self) -> dict[str, Any]:
        """Return them as JSON."""
        left = [{"reason": x.reason, "rows": x.rows, "detail": x.detail} for x in self.left]
        document = {"rows": self.rows, "left_out": left, "selected": self.kept}
        return document | {"threshold": self.threshold}
