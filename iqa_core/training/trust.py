"""How far fixed prompts can be trusted: their agreement with the known order of degraded copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from iqa_core.clip.encoder import context_encoder
from iqa_core.prompts.pairs import NAMED_PAIRS
from iqa_core.scoring.margins import image_scores_f64, margins, pair_scores_f64
from iqa_core.training.known_order import known_order_agreement, reliability

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from iqa_core.clip.encoder import ContextTextEncoder, Towers
    from iqa_core.scoring.features import PromptFeatures
    from iqa_core.training.data import Bases

__all__ = ["ensemble_scores", "measure_trust", "tower_doubt", "views_in_rows"]

#: Number of views from which trust is measured.
_TRUST_VIEWS = 4096
#: Pairs of prompts that praise, and how many of them, and how far on average, must be right.
_PANEL = (*NAMED_PAIRS["pyiqa"], *NAMED_PAIRS["quality"])
_FEWEST_RIGHT, _LEAST_MEAN = 11, 0.1
#: Views that the panel is compared on, draws of other words, and how many of them may be as good.
_DOUBT_VIEWS, _DRAWS, _MOST_AS_GOOD = 1024, 99, 1


def views_in_rows(
    bases: Bases, within: bool, most: int | None = None
) -> tuple[np.ndarray, torch.Tensor, torch.Tensor | None]:
    """Lay out bases as rows.

    Args:
        bases: n images with V copies each.
        within: Whether only views of one image are compared.
        most: Rows to return at most; whole images.

    Returns:
        (M, D) features, (M,) levels, and (M,) numbers of the images or None, for
        :func:`iqa_core.training.known_order.order_loss`.
    """
    each = bases.levels.shape[1]
    count = len(bases.levels) if most is None else min(len(bases.levels), most // each)
    features = np.asarray(bases.features[:count]).reshape(count * each, -1)
    levels = torch.from_numpy(np.array(bases.levels[:count])).ravel()
    return features, levels, torch.arange(count).repeat_interleave(each) if within else None


def measure_trust(
    bases: Bases, prompts: PromptFeatures, *, within: bool
) -> tuple[np.ndarray, float]:
    """Measure how reliable fixed prompts are, on bases to train on, which are in random order.

    Args:
        bases: Images with copies.
        prompts: Features of the P fixed base prompts.
        within: Whether only views of one image are compared.

    Returns:
        (P,) weights in [0, 1] of the pairs, and the weight of their ensemble by these weights.
    """
    features, levels, images = views_in_rows(bases, within, _TRUST_VIEWS)
    margin = torch.from_numpy(margins(features, prompts))
    weights = reliability(known_order_agreement(margin, levels, images))
    scores = ensemble_scores(margin, weights.numpy())
    return weights.numpy(), float(reliability(known_order_agreement(scores, levels, images))[0])


def ensemble_scores(margin: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
    """Return the weighted mean of the pair scores.

    Args:
        margin: (N, P) logit margins.
        weights: (P,), at least 0. The plain mean is taken if all are 0.

    Returns:
        (N, 1) float64 in [0, 1].
    """
    if not weights.any() or (weights == weights[0]).all():
        return image_scores_f64(margin)
    each = pair_scores_f64(margin)
    return each @ torch.from_numpy(weights / weights.sum())[:, None]


def tower_doubt(towers: Towers, bases: Bases, *, within: bool) -> str:
    """Return why a tower is not to be trusted with words of quality, or "".

    Whatever the base prompts are, a tower that knows quality puts most of fifteen plain pairs ("a good
    photo" / "a bad photo") the right way round, and other words of the vocabulary in their places do not.
    Features of random weights follow blur and noise, so that learned prompts can follow the copies of
    ``iqa embed`` and nothing else; but to random weights all words are equal, and quality's are better than
    other words by chance only: they pass in one case of fifty at most.

    Args:
        towers: The CLIP. Its text encoder takes token embeddings.
        bases: Images with copies.
        within: Whether only views of one image are compared.

    Source: Phipson, Smyth, "Permutation P-values Should Never Be Zero", 2010,
        https://arxiv.org/abs/1603.05766, for comparing with random draws.
    """
    views = views_in_rows(bases, within, _DOUBT_VIEWS)
    texts = list(dict.fromkeys((pair.positive, pair.negative) for pair in _PANEL))
    prompts = [side for pair in texts for side in pair]
    found = _agreements(towers.text.encode(prompts), views)
    right, mean = int((found > 0).sum()), float(found.mean())
    said = (
        f"the model's words don't know quality: of {len(found)} plain pairs such as good and bad photo "
        f"{right} order degraded copies the right way round (mean agreement {mean:.2f}"
    )
    if right < _FEWEST_RIGHT or mean < _LEAST_MEAN:
        return f"{said}; {_FEWEST_RIGHT} and {_LEAST_MEAN:g} are asked for)"
    as_good = sum(
        float(_agreements(features, views).mean()) >= mean
        for features in _other_words(context_encoder(towers.text), prompts)
    )
    if as_good <= _MOST_AS_GOOD:
        return ""
    return (
        f"{said}), and so do {as_good} of {_DRAWS} draws of other words in their places "
        f"({_MOST_AS_GOOD} at most is asked for)"
    )


def _agreements(
    features: torch.Tensor, views: tuple[np.ndarray, torch.Tensor, torch.Tensor | None]
) -> torch.Tensor:
    """Return how far pairs agree with the known order: features of 2 P prompts -> (P,)."""
    seen, levels, images = views
    direction = features[::2] - features[1::2]
    return known_order_agreement(torch.from_numpy(seen).float() @ direction.T, levels, images)


@torch.no_grad()
def _other_words(text: ContextTextEncoder, prompts: Sequence[str]) -> Iterator[torch.Tensor]:
    """Yield features of the prompts with each word replaced by a random one, the same in all of them."""
    tokens = text.tokenize(prompts)
    ends = text.end_of_text(tokens)
    place = torch.arange(tokens.shape[1])
    is_word = (place > 0) & (place < ends[:, None])
    words, code = tokens[is_word].unique(return_inverse=True)
    special = {int(tokens[0, 0]), int(tokens[0, ends[0]])}
    table = text.token_embedding.weight
    others = torch.tensor([n for n in range(len(table)) if n not in special])
    generator = torch.Generator().manual_seed(0)
    for _ in range(_DRAWS):
        drawn = torch.randperm(len(others), generator=generator)[: len(words)]
        tokens[is_word] = others[drawn][code]
        embeddings = text.token_embedding(tokens.to(table.device))
        yield text.encode_embeddings(embeddings, ends.to(table.device)).cpu()
