"""Whether weights can be scored with (shapes, finite numbers, scale), and their digest."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from typing import TYPE_CHECKING

import torch

from iqa_core.clip.encoder import MAX_LOGIT_SCALE
from iqa_core.clip.weights_error import OtherArchitectureError, WeightsError
from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["finite_digest", "fitted", "scale_of"]

log = logging.getLogger(__name__)

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
        shapes = (" x ".join(map(str, side[other[0]].shape)) for side in (found, expected))
        raise OtherArchitectureError(
            f"{other[0]} is {next(shapes)} in the file and {next(shapes)} in the architecture, the "
            f"first of {len(other)} tensors that differ, of {len(expected)}",
            "name the architecture that the file was saved from",
        )
    return found


def finite_digest(model: str, weights: Mapping[str, Callable[[], torch.Tensor]]) -> str:
    """Return the SHA-256 (hex) of weights: names, shapes, types and values, in the order of the names.

    Weights of a training that diverged are refused: every score would be not-a-number.

    Args:
        model: ``--model``.
        weights: By name, in the architecture's order, a function that returns the tensor as the model
            computes with it. Each is called once, so that converted tensors need not be held.

    Raises:
        InputError: If a floating-point tensor holds a number that is not finite.
    """
    sha = hashlib.sha256()
    wrong: dict[str, str] = {}
    total = 0
    for name in sorted(weights):
        tensor = weights[name]().detach()
        total += tensor.is_floating_point()
        # One pass without a copy (aminmax passes NaN on): a seventh of the digest's time.
        if tensor.is_floating_point() and tensor.numel():
            extremes = torch.stack(torch.aminmax(tensor))
            if not extremes.isfinite().all():
                wrong[name] = "not-a-number" if extremes.isnan().any() else "infinity"
        sha.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        sha.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    if wrong:
        first = next(name for name in weights if name in wrong)
        raise InputError(
            f"weights of --model {model} hold {wrong[first]} in {len(wrong)} of {total} "
            f"tensors, {first} the first: their training diverged, or they overflowed when they "
            "were saved in half precision: use an earlier checkpoint, or save them in float32"
        )
    return sha.hexdigest()


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
