"""Quotas: how many rows are kept, of what order, within which groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from iqa_core.errors import InputError

__all__ = ["Amount", "allocate", "random_key"]


@dataclass(frozen=True)
class Amount:
    """A number of rows, or a share of them.

    Attributes:
        rows: The number; None for a share.
        share: From 0 to 1; None for a number.
    """

    rows: int | None = None
    share: Fraction | None = None

    @classmethod
    def of(cls, given: str | int, option: str) -> Amount:
        """Read ``100`` or ``20%``.

        Raises:
            InputError: If it is neither.
        """
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", str(given))
        if found and found[2] and 0 < Fraction(found[1]) <= 100:
            return cls(share=Fraction(found[1]) / 100)
        if found and not found[2] and "." not in found[1] and int(found[1]) > 0:
            return cls(rows=int(found[1]))
        raise InputError(
            argument=option,
            value=given,
            limit="a number of rows or a share, above 0 and at most 100%",
            fix="write 1000 or 20%, say",
        )

    def sql(self, size: str) -> str:
        """Return SQL of the rows that are kept of a group; a share is rounded down.

        >>> Amount.of("20%", "top").sql("n")
        '(n * 1) // 5'
        """
        if self.share is None:
            return f"least({size}, {self.rows})"
        return f"({size} * {self.share.numerator}) // {self.share.denominator}"


def random_key(seed: int, weight: str | None = None) -> str:
    """Return SQL of a random number of each row: the rows with the N lowest are a sample of N.

    It follows from the seed and the row's identity alone (the first 13 hexadecimal digits of the MD5 of
    ``SEED:FILE:ROW`` as a fraction u of 2**52), so a sample does not depend on the order of the part files,
    and a larger sample of the same seed holds the smaller one. Weighted without replacement, after
    Efraimidis and Spirakis, "Weighted random sampling with a reservoir", Information Processing Letters 97
    (2006): the key is -ln(u) / weight; theirs is its monotone transform u ** (1 / weight).

    Args:
        seed: The seed.
        weight: SQL of a DOUBLE, above 0 where rows may be drawn; others get no key.
    """
    digits = f"substr(md5({seed} || ':' || manifest_file || ':' || manifest_row), 1, 13)"
    u = f"((CAST('0x' || {digits} AS BIGINT) + 0.5) / 4503599627370496.0)"
    if weight is None:
        return u
    return f"CASE WHEN {weight} > 0 THEN -ln({u}) / greatest({weight}, 1e-300) END"


def allocate(sizes: Mapping[int, int], rows: int) -> dict[int, int]:
    """Divide a number of rows equally among strata; what a small one lacks, the others give.

    >>> allocate({0: 100, 1: 2, 2: 100}, 11)
    {0: 5, 1: 2, 2: 4}

    Args:
        sizes: Rows of each stratum.
        rows: What is wanted in sum.

    Returns:
        Rows of each stratum; the remainder of the division goes to the first ones.
    """
    given = dict.fromkeys(sorted(sizes), 0)
    left = min(rows, sum(sizes.values()))
    while left:
        open_ones: Sequence[int] = [place for place in given if given[place] < sizes[place]]
        each, more = divmod(left, len(open_ones))
        for number, place in enumerate(open_ones):
            added = min(each + (number < more), sizes[place] - given[place])
            given[place] += added
            left -= added
    return given
