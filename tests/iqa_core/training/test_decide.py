"""Tests of iqa_core/training/decide.py: learned or fixed by a paired interval over contents."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.evaluation.correlations import srcc
from iqa_core.training.decide import Evidence, column_evidence, known_order_evidence, verdict
from iqa_core.training.known_order import known_order_agreement

IMAGES = 60


def torch_tensor(values):
    import torch

    return torch.from_numpy(values)


@pytest.fixture
def levels():
    drawn = np.random.default_rng(0).integers(1, 6, (IMAGES, 3))
    return np.concatenate([np.zeros((IMAGES, 1)), drawn], axis=1).astype(np.int8)


def noisy(levels, noise, seed):
    return -levels + noise * np.random.default_rng(seed).normal(size=levels.shape)


@pytest.mark.parametrize("within", [False, True])
def test_agreement_is_that_of_the_known_order(levels, within):
    scores = noisy(levels, 3.0, 1)
    found = known_order_evidence([scores, scores, scores], levels, np.arange(IMAGES), within=within)
    images = np.repeat(np.arange(IMAGES), 4) if within else None
    expected = known_order_agreement(
        torch_tensor(scores.reshape(-1, 1)),
        torch_tensor(levels.ravel()),
        None if images is None else torch_tensor(images),
    )
    assert found.fixed.value == pytest.approx(float(expected))
    assert found.difference.value == found.difference.low == found.difference.high == 0
    assert found.fixed.low < found.fixed.value < found.fixed.high
    better, sentence = verdict(found)
    assert not better
    assert (
        "not shown to be better than the fixed ones: known order 0.000 [0.000, 0.000]" in sentence
    )


@pytest.mark.parametrize("within", [False, True])
def test_better_and_worse_prompts_are_told_apart(levels, within):
    good, bad = noisy(levels, 1.0, 1), noisy(levels, 5.0, 2)
    groups = np.arange(IMAGES)
    better = known_order_evidence([bad, good, good], levels, groups, within=within)
    assert verdict(better)[0]
    assert "the learned prompts are better" in verdict(better)[1]
    worse = verdict(known_order_evidence([good, bad, bad], levels, groups, within=within))
    assert not worse[0]
    assert "the learned prompts are worse" in worse[1]


def test_rows_of_one_content_are_drawn_together(levels):
    """Sixty copies of one comparison are one observation."""
    one = np.repeat(levels[:10], 6, axis=0)
    good, bad = (np.repeat(noisy(levels[:10], 3.0, seed), 6, axis=0) for seed in (1, 2))
    alone = known_order_evidence([bad, good, good], one, np.arange(IMAGES), within=True)
    together = known_order_evidence(
        [bad, good, good], one, np.repeat(np.arange(10), 6), within=True
    )
    assert together.contents == 10
    assert together.difference.value == pytest.approx(alone.difference.value)
    width = [e.difference.high - e.difference.low for e in (alone, together)]
    assert width[1] > 1.5 * width[0]


def test_too_few_contents_decide_nothing(levels):
    found = known_order_evidence(
        [noisy(levels, 9.0, 2), *[-levels.astype(float)] * 2],
        levels,
        np.arange(IMAGES) % 5,
        within=True,
    )
    assert found.difference.low > 0
    assert verdict(found)[0] is False
    assert "5 held-out contents are too few" in verdict(found)[1]


def test_a_column_of_opinions_decides_where_there_is_one():
    rng = np.random.default_rng(0)
    column = rng.normal(size=200)
    good, bad = column + 0.3 * rng.normal(size=200), column + 3 * rng.normal(size=200)
    found = column_evidence("mos", [bad, good, good], column, np.arange(200))
    assert isinstance(found, Evidence)
    assert found.learned.value == pytest.approx(srcc(good, column))
    assert verdict(found)[0]
    assert "srcc mos" in verdict(found)[1]


def test_without_evidence_nothing_is_claimed():
    better, sentence = verdict(None)
    assert not better
    assert "nothing here shows" in sentence


def test_a_constant_column_is_no_evidence():
    scores = np.random.default_rng(0).random(IMAGES)
    found = column_evidence("mos", [scores] * 3, np.ones(IMAGES), np.arange(IMAGES))
    is_better, reason = verdict(found)
    assert not is_better
    assert "srcc mos can't be measured on 60 held-out contents" in reason
