"""Whether weights can be scored with: the architecture's shapes, finite numbers, a usable scale."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch

from iqa_core.clip.checkpoints import WeightsError
from iqa_core.clip.layouts import OtherArchitectureError
from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_LOGIT_SCALE", "check_finite", "fitted", "scale_of"]

log = logging.getLogger(__name__)

#: Margins are at most twice the scale, and with this one finite in float32.
MAX_LOGIT_SCALE = 1e38
_USUAL_SCALE = (1.0, 1000.0)


def fitted(
    state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return weights in an architecture's own shapes.

    Args:
        state: Weights by the architecture's names.
        expected: The architecture's own, of any values.

    Raises:
        OtherArchitectureError: If shapes differ by more than a scalar's dimension.
    """
    found = {
        name: tensor.reshape(expected[name].shape)
        if tensor.numel() == expected[name].numel() == 1
        else tensor
        for name, tensor in state.items()
    }
    other = [
        name for name in expected if name in found and found[name].shape != expected[name].shape
    ]
    if any(not found[name].numel() for name in other):
        raise WeightsError(
            f"{other[0]} and {len(other) - 1} other tensors are empty, as where DeepSpeed keeps the "
            "weights in other files",
            "join them first, with the zero_to_fp32.py in the checkpoint's folder",
        )
    if other:
        shapes = (" x ".join(map(str, one[other[0]].shape)) for one in (found, expected))
        raise OtherArchitectureError(
            f"{other[0]} is {next(shapes)} in the file and {next(shapes)} in the architecture, the "
            f"first of {len(other)} tensors that differ, of {len(expected)}",
            "name the architecture that the file was saved from",
        )
    return found


def check_finite(model: str, weights: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights of a training that diverged: every score would be not-a-number."""
    state = {name: one for name, one in weights.items() if one.is_floating_point()}
    # One pass without a copy (aminmax passes NaN on): a seventh of the digest's time.
    wrong = [
        name
        for name, tensor in state.items()
        if tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all()
    ]
    if wrong:
        kind = "not-a-number" if state[wrong[0]].isnan().any() else "infinity"
        raise InputError(
            f"weights of --model {model} hold {kind} in {len(wrong)} of {len(state)} "
            f"tensors, {wrong[0]} the first: their training diverged, or they overflowed when they "
            "were saved in half precision: use an earlier checkpoint, or save them in float32"
        )


def scale_of(model: str, logit_scale: torch.Tensor) -> float:
    """Return exp(logit_scale) of the weights."""
    # By way of float64: float32's own exp has other last bits on other processors, and the scale is
    # part of a run's fingerprint.
    stored = float(logit_scale.detach().double())
    scale = float(torch.tensor(stored, dtype=torch.float64).exp().float())
    hint = f"a scale of {stored:g} is stored as {math.log(stored):.4g}" if stored > 0 else ""
    if not 0 < scale <= MAX_LOGIT_SCALE:
        raise InputError(
            f"weights of --model {model} have a logit_scale of {stored:g}, whose exponential is no "
            f"scale for scores in float32: CLIP stores the logarithm, about 4.6{hint and f' ({hint})'}: "
            "correct it in the file"
        )
    if not _USUAL_SCALE[0] <= scale <= _USUAL_SCALE[1]:
        log.warning(
            "%s has a logit scale of %.3g, where trained CLIPs have 10 to 200, so scores will be near "
            "%s: give --logit-scale if it was stored otherwise than as its logarithm",
            model, scale, "0.5" if scale < 1 else "0 or 1",
        )  # fmt: skip
    return scale
