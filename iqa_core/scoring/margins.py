"""From image and text features to margins and scores: the formula, in NumPy and in torch.

    logit margin   m_ip = g * (<f_i, z_p0> - <f_i, z_p1>)
    pair score     s_ip = sigmoid(m_ip)
    image score    s_i  = mean over p of s_ip

Scoring works on NumPy arrays in float64 and returns float32; training works on tensors, in float32 with
gradients, and needs scores in float64, where margins above 17 are no ties yet.

Sources:
    Wang, Chan, Loy, "Exploring CLIP for Assessing the Look and Feel of Images", AAAI 2023,
    https://arxiv.org/abs/2207.12396. What differs: several pairs are averaged, and the two-way
    softmax is computed as the sigmoid of the logit margin, which is the same number but does not
    saturate before the ranking losses see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from iqa_core.scoring.features import not_unit

if TYPE_CHECKING:
    from iqa_core.scoring.features import PromptFeatures

__all__ = [
    "image_scores",
    "image_scores_f64",
    "margins",
    "pair_margins",
    "pair_scores",
    "pair_scores_f64",
    "score_features",
]

#: Rows whose float64 features fit into a processor's second-level cache.
_BLOCK_ROWS = 256
#: Numbers that torch computes at once, at most: whole vectors, also of AVX-512 and twice unrolled.
_LANES = 64
#: So few numbers are not shared between threads; a multiple of the lanes.
_OF_ONE_THREAD = 16384
#: How far a length in float32 may be from 1 for a row to need no further check.
_SURELY_UNIT = 0.005

_Array = TypeVar("_Array", np.ndarray, torch.Tensor)


def _margins(images: _Array, prompts: _Array, logit_scale: float) -> _Array:
    """Return (N, P) margins of (N, D) image features and (P, 2, D) prompt features."""
    result: _Array = logit_scale * (images @ _directions(prompts).T)
    return result


def _directions(prompts: _Array) -> _Array:
    """Return the (P, D) differences of (P, 2, D) prompt features.

    They come first: subtracting two large, nearly equal logits would lose digits.
    """
    directions: _Array = prompts[:, 0] - prompts[:, 1]
    return directions


def margins(features: np.ndarray, prompts: PromptFeatures) -> np.ndarray:
    """Return the logit margins g * (<f_i, z_p0> - <f_i, z_p1>), computed in float64.

    Args:
        features: (N, D) unit image features of any float type.
        prompts: P pairs of width D, of one context.

    Returns:
        (N, P) float32; (N, K P) of K contexts.
    """
    images = features.astype(np.float64, copy=False)
    scaled: np.ndarray = _margins(images, prompts.features.astype(np.float64), prompts.logit_scale)
    result: np.ndarray = scaled.astype(np.float32)
    return result


def pair_margins(
    prompts: torch.Tensor, images: torch.Tensor, logit_scale: float = 1.0
) -> torch.Tensor:
    """Return :func:`margins` of tensors, computed in float32, with gradients.

    Args:
        prompts: (P, 2, D) unit prompt features, as the prompt learner returns them.
        images: (N, D) unit image features, also in half precision, as caches hold them.
        logit_scale: The factor g.

    Returns:
        (N, P) float32. Losses take lists in the last dimension: pass them ``.T``.
    """
    return _margins(images.float(), prompts, logit_scale)


def pair_scores(margin: np.ndarray) -> np.ndarray:
    """Return sigmoid(margin), the two-way softmax of CLIP-IQA, in [0, 1]; same shape, float32.

    A value's last bit does not depend on its place: torch computes those behind the last whole vector of
    a thread's share otherwise, so there are none.
    """
    values = np.ascontiguousarray(margin, dtype=np.float32)
    padded = np.zeros(-(-values.size // _LANES) * _LANES, dtype=np.float32)
    padded[: values.size] = values.ravel()
    for share in torch.from_numpy(padded).split(_OF_ONE_THREAD):
        share.sigmoid_()
    return padded[: values.size].reshape(values.shape)


def image_scores(scores: np.ndarray) -> np.ndarray:
    """Return the mean over pairs of (N, P) pair scores: (N,) float32 in [0, 1]."""
    mean: np.ndarray = scores.mean(axis=1, dtype=np.float64)
    return mean.astype(np.float32)


def pair_scores_f64(margins: torch.Tensor) -> torch.Tensor:
    """Return sigmoid(margin) without gradients, (N, P) float64 in [0, 1].

    In float32, margins above 17 would all be 1 and thereby ties.
    """
    return margins.detach().double().sigmoid()


def image_scores_f64(margins: torch.Tensor) -> torch.Tensor:
    """Return the mean over pairs of sigmoid(margin), without gradients.

    Args:
        margins: (N, P) logit margins.

    Returns:
        (N, 1) float64 in [0, 1]. Losses take lists in the last dimension: pass them ``.T``.
    """
    return pair_scores_f64(margins).mean(dim=-1, keepdim=True)


def score_features(
    features: np.ndarray, prompts: PromptFeatures
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score image features; rows that are none give NaN (zeros would score 0.5).

    Computed in float64, in blocks that stay in the processor's cache; threads may call it at the same time.

    Args:
        features: (N, D) of any float type.
        prompts: P pairs of width D.

    Returns:
        (N, P) margins, (N, P) pair scores and (N,) scores, all float32. All are NaN in rows whose
        features are not finite or not of length 1, or where a number is not finite. With several
        contexts, margins and pair scores are their means.
    """
    shape = (len(features), prompts.contexts, len(prompts.names))
    products = torch.empty((shape[0], shape[1] * shape[2]), dtype=torch.float64)
    lengths = torch.empty(shape[0])
    directions = _directions(torch.from_numpy(prompts.features.astype(np.float64))).T
    # By torch: it converts float16 several times as fast as NumPy, whose threads would wait for each other.
    for start in range(0, len(features), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        images = torch.from_numpy(np.ascontiguousarray(features[rows]))
        if images.dtype == torch.float16:
            images = images.float()
        lengths[rows] = torch.linalg.vector_norm(images, dim=1)
        torch.mm(images.double(), directions, out=products[rows])
    margin = products.mul_(prompts.logit_scale).float().numpy()
    # The lengths in float32 are enough for most rows; the others are checked as always.
    (doubtful,) = np.nonzero(~(np.abs(lengths.numpy() - 1) < _SURELY_UNIT))
    margin[doubtful[not_unit(features[doubtful])]] = np.nan
    finite = np.isfinite(margin)
    if not finite.all():
        margin[~finite.all(axis=1)] = np.nan
    scores = pair_scores(margin)
    if prompts.contexts > 1:
        scores, margin = (
            values.reshape(shape).mean(axis=1, dtype=np.float64).astype(np.float32)
            for values in (scores, margin)
        )
    if prompts.weights is None:
        return margin, scores, image_scores(scores)
    weighted: np.ndarray = scores.astype(np.float64) @ prompts.weights.astype(np.float64)
    return margin, scores, weighted.astype(np.float32)
