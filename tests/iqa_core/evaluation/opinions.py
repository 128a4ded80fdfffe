"""Opinions to evaluate scores with."""

from __future__ import annotations

import numpy as np


def opinions(count=300, noise=4.0, seed=0):
    """Scores in [0, 1] and MOS of 0 to 100 that bends with them."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=count)
    return x, 20 + 60 / (1 + np.exp(-(x - 0.45) / 0.09)) + 8 * x + noise * rng.normal(size=count)
