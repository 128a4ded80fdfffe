"""Tests of iqa_core/losses/_lists.py: what every loss refuses."""

from __future__ import annotations

import pytest
import torch

from tests.iqa_core.losses.cases import (
    every_case,
    loss_of,
)


@pytest.mark.parametrize(
    ("margins", "targets", "mask", "message"),
    [
        (torch.zeros(()), torch.zeros(()), None, r"shape \(\), but must be \(..., L\)"),
        (torch.zeros(2, 0), torch.zeros(2, 0), None, "at least 1 image"),
        (torch.zeros(2, 3), torch.zeros(2, 4), None, r"targets have shape \(2, 4\)"),
        (torch.zeros(3), torch.zeros(2, 3), None, r"targets have shape \(2, 3\)"),
        (torch.zeros(3), torch.zeros(1), None, r"targets have shape \(1,\)"),
        (torch.zeros(3), torch.zeros(3), torch.ones(2) > 0, r"mask have shape \(2,\)"),
        (torch.zeros(3), torch.zeros(3), torch.ones(3), "write mask > 0"),
    ],
)
@every_case
def test_shapes_are_checked(case, margins, targets, mask, message):
    with pytest.raises(ValueError, match=message):
        loss_of(case)(margins, targets, mask)
