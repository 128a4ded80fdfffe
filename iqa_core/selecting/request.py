"""What a selection asks for: statuses, conditions, groups of duplicates, a quota."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iqa_core.columns import SCORE
from iqa_core.errors import InputError, Status
from iqa_core.selecting.quota import Amount

__all__ = ["CLUSTER", "DUPLICATES", "Request"]

#: The column of a file of clusters.
CLUSTER = "cluster"

#: As ``keep_best_of``: the column that a file of clusters has.
DUPLICATES = "duplicates"

Quota = Literal["top", "bottom", "best", "sample", "for_labelling"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is selected; in this order.

    Attributes:
        statuses: Statuses of rows that can be selected; ``any`` is all.
        where: Conditions, each of which must be true.
        keep_best_of: Column or expression: of rows with an equal value, that with the highest rank is kept;
            rows without a value are kept. ``duplicates`` is the column ``cluster``.
        rank: Expression of the order that ``top``, ``bottom``, ``best`` and ``keep_best_of`` mean.
        top: The highest ranks: ``20%`` or a number.
        bottom: The lowest ranks.
        best: As ``top``, a number.
        sample: A random sample: a share or a number.
        for_labelling: The number of rows whose labels would teach a calibration most.
        by: Columns or expressions of groups, of which each has the quota.
        weight: Of ``sample``: expression that rows are drawn in proportion to.
        stratify: Of ``sample``: expression in whose deciles equally many rows are drawn.
        seed: Of ``sample`` and ``for_labelling``.
    """

    statuses: tuple[str, ...] = (Status.OK.value,)
    where: tuple[str, ...] = ()
    keep_best_of: str | None = None
    rank: str = SCORE
    top: str | None = None
    bottom: str | None = None
    best: int | None = None
    sample: str | None = None
    for_labelling: int | None = None
    by: tuple[str, ...] = ()
    weight: str | None = None
    stratify: str | None = None
    seed: int = 0

    @property
    def quota(self) -> Quota | None:
        """Which of the quotas is asked for; None for none."""
        asked: dict[Quota, object] = {
            "top": self.top,
            "bottom": self.bottom,
            "best": self.best,
            "sample": self.sample,
            "for_labelling": self.for_labelling,
        }
        return next((name for name, value in asked.items() if value is not None), None)

    @property
    def amount(self) -> Amount | None:
        """How many rows the quota keeps; None without one."""
        if (quota := self.quota) is None:
            return None
        return Amount.of(getattr(self, quota), quota.replace("_", "-"))

    @property
    def described(self) -> str:
        """The quota as it was asked for, such as ``--top 20% --by class``."""
        words = []
        if quota := self.quota:
            words.append(f"--{quota.replace('_', '-')} {getattr(self, quota)}")
        words += [f"--by {' '.join(self.by)}"] if self.by else []
        words += [f"--stratify {self.stratify}"] if self.stratify else []
        words += [f"--weight {self.weight}"] if self.weight else []
        return " ".join(words)

    def check(self) -> None:
        """Check what can be checked without the columns.

        Raises:
            InputError: If options contradict each other.
        """
        quotas = (self.top, self.bottom, self.best, self.sample, self.for_labelling)
        if sum(value is not None for value in quotas) > 1:
            raise InputError(
                "--top, --bottom, --best, --sample and --for-labelling: give one of them only"
            )
        if self.by and self.quota is None:
            raise InputError(
                "--by needs a quota: add --best N, --top N%, --bottom N% or --sample N"
            )
        if self.by and self.quota == "for_labelling":
            raise InputError("--for-labelling and --by can't be combined: leave one out")
        for option, value in (("weight", self.weight), ("stratify", self.stratify)):
            if value is not None and self.quota != "sample":
                raise InputError(
                    f"--{option} has an effect with --sample only: add it, or leave it out"
                )
        if self.seed and self.quota not in ("sample", "for_labelling"):
            raise InputError(
                "--seed has an effect with --sample and --for-labelling only: add one, or leave it out"
            )
        if self.stratify is not None and self.by:
            raise InputError("--stratify and --by can't be combined: leave one out")
        known = {*Status, "any"}
        for status in self.statuses:
            if status not in known:
                raise InputError(
                    argument="status",
                    value=status,
                    limit=f"among {', '.join([*Status, 'any'])}",
                    fix="leave {status} out for ok",
                )
        _ = self.amount
