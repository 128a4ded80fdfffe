"""Tests of iqa_core/training/safety.py: each failure built, and found in its own words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from iqa_core.prompts.ensemble import PromptEnsemble
from iqa_core.prompts.learner import PromptLearner
from iqa_core.prompts.pairs import PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.training.loop import train
from iqa_core.training.outcome import conclude_training
from iqa_core.training.safety import (
    PairHealth,
    check_pairs,
    correlation_between_pairs,
)
from tests.iqa_core.training.rows import settings, written

GOOD = PromptPair("good", "Good photo.", "Bad photo.")
TURNED = PromptPair("good", "Bad photo.", "Good photo.")


@pytest.fixture(scope="module")
def good(towers):
    return encode_prompts(towers, [GOOD])


@pytest.fixture(scope="module")
def ordered(viewed, good, tmp_path_factory):
    return written(viewed, str(tmp_path_factory.mktemp("ordered")), good, holdout=0.2)


@pytest.fixture(scope="module")
def unordered(ordered):
    """The same rows, without copies."""
    return dataclasses.replace(ordered, bases=0, held_out_bases=0, views=0)


def ensemble(towers, pair=GOOD, contexts=1, **options):
    options = {"context_length": 2, **options}
    return PromptEnsemble(
        [PromptLearner(towers.text, [pair], seed=n, **options) for n in range(contexts)]
    )


def kinds(outcome):
    return {finding.kind for finding in outcome.findings}


def test_prompts_as_they_were_have_no_finding_and_are_not_better(towers, ordered, good):
    outcome = conclude_training(ensemble(towers, context_length=0), towers, ordered, good)
    assert not outcome.findings
    assert not outcome.is_better
    assert outcome.health[0].own == pytest.approx(1)


def test_an_inverted_pair(towers, ordered, unordered, good):
    turned = ensemble(towers, TURNED, context_length=0)
    outcome = conclude_training(turned, towers, ordered, good)
    assert kinds(outcome) == {"inverted", "left teacher"}
    assert (
        "pair 'good' is inverted: it orders degraded copies the wrong way"
        in outcome.findings[0].text
    )
    assert not outcome.is_better
    # Without copies, by its own order.
    (finding,) = conclude_training(turned, towers, unordered, good).findings
    assert "its scores fall where its fixed scores rise" in finding.text


def test_one_inverted_context_among_several_is_a_warning():
    pair = PairHealth("good", 0.9, 0.6, 0.7, (0.7, -0.5, 0.8), 0.1)
    (finding,) = check_pairs([pair])
    assert not finding.is_serious
    assert "inverted in context 2 of 3" in finding.text


def test_a_pair_that_was_wrong_before_is_no_inversion():
    assert not check_pairs([PairHealth("sad", 0.9, -0.5, -0.4, (-0.4,), 0.1)])


def test_a_collapsed_pair(towers, ordered, good):
    """One context per side, so different that nothing else counts, and then equal prompts."""
    both = ensemble(towers, context="per-side", context_length=70, position="end")
    features = both(towers.text).detach()
    assert float((features[..., 0, :] * features[..., 1, :]).sum(-1)) < 0.9999
    alike = PromptPair("good", "Good photo.", "Good photo. ")  # differs as a text only
    outcome = conclude_training(ensemble(towers, alike), towers, ordered, good)
    assert "collapsed" in kinds(outcome)
    assert "pair 'good' collapsed: its two prompts have the same features" in [
        finding.text for finding in outcome.findings
    ]
    assert not outcome.is_better


def test_zero_loss(towers, unordered, good):
    """A teacher that is not trusted, and no known order: no gradient."""
    untrusted = dataclasses.replace(unordered, trust=(0.0,))
    learner = ensemble(towers)
    before = learner.context.detach().clone()
    state = train(learner, towers.text, untrusted, settings(towers, steps=3, checkpoint_steps=1))
    assert torch.equal(learner.context, before)
    outcome = conclude_training(learner, towers, untrusted, good, history=state.history, moved=0.0)
    assert "zero loss" in kinds(outcome)
    assert any("nothing was learned, the loss was 0" in f.text for f in outcome.findings)
    assert not outcome.is_better


def test_a_context_that_flew_away(towers, ordered, good):
    learner = ensemble(towers)
    chosen = settings(towers, steps=2, checkpoint_steps=1, learning_rate=1e9, warmup=0)
    state = train(learner, towers.text, ordered, chosen)
    assert state.ended == "steps"  # not an error: AdamW's numbers stay finite
    outcome = conclude_training(learner, towers, ordered, good, history=state.history)
    (text,) = [finding.text for finding in outcome.findings if finding.kind == "flown"]
    assert "a context flew away: a vector is" in text
    assert "lower --learning-rate" in text
    assert not outcome.is_better


def test_a_student_that_left_a_trusted_teacher(towers, ordered, good):
    """Its scores follow the known order, but not the teacher's order of whole images."""
    other = PromptPair("good", "zebra", "carpet")
    outcome = conclude_training(ensemble(towers, other), towers, ordered, good)
    assert ordered.trust[0] > 0.25
    assert "left teacher" in kinds(outcome)
    assert any("no longer agree with the fixed ones" in f.text for f in outcome.findings)
    assert not outcome.is_better


def test_correlation_between_pairs():
    x = np.random.default_rng(0).normal(size=50)
    assert correlation_between_pairs(np.stack([x, x, -x], 1)) == pytest.approx(-1 / 3)
    assert np.isnan(correlation_between_pairs(x[:, None]))
