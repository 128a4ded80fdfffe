"""Tests of iqa_core/training/lists.py: which rows are taken when, and pseudo-labels of the whole set."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.errors import InputError
from iqa_core.prompts.pairs import PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.training.lists import Lists, epoch_order
from tests.iqa_core.training.rows import settings, written


def test_an_epoch_has_each_row_once_and_contexts_have_lists_of_their_own(towers, data):
    lists = Lists(data, settings(towers))
    assert lists.per_epoch == data.rows // 32
    batches = lists.batches([0, 1], 0)
    seen = [next(batches) for _ in range(lists.per_epoch)]
    for context in (0, 1):
        rows = [row.numpy().tobytes() for batch in seen for row in batch[context].features]
        assert len(set(rows)) == 32 * lists.per_epoch
    assert not (seen[0][0].features == seen[0][1].features).all()
    # From any step on, the same.
    again = next(lists.batches([1], 3))[1]
    assert (again.features == seen[3][1].features).all()
    # The second context's lists are those of the next seed.
    other = next(Lists(data, settings(towers, seed=1)).batches([0], 3))[0]
    assert (other.features == seen[3][1].features).all()


def test_the_order_of_an_epoch():
    first = epoch_order(100, 0, 0)
    assert sorted(first) == list(range(100))
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not np.array_equal(first, epoch_order(100, *other))


def test_a_list_longer_than_the_rows_is_refused(towers, data):
    with pytest.raises(InputError, match=r"list_size \(1000\) must be at most"):
        Lists(data, settings(towers, list_size=1000))


def test_bases_come_with_their_copies(viewed, towers, tmp_path):
    prompts = encode_prompts(towers, [PromptPair("good", "Good photo.", "Bad photo.")])
    data = written(viewed, str(tmp_path), prompts, holdout=0.2)
    batch = next(Lists(data, settings(towers)).batches([0], 0))[0]
    assert batch.images.tolist() == [n // 4 for n in range(4 * 32)]
    assert not batch.levels[::4].any()
    assert not len(next(Lists(data, settings(towers, order_weight=0.0)).batches([0], 0))[0].views)


def test_pseudo_labels_are_of_the_whole_set(towers, data):
    """UPL as published: the most confident images of each side, chosen once."""
    chosen = settings(towers, loss="upl", loss_options={"top": 10.0})
    lists = Lists(data, chosen)
    assert lists.has_labels
    assert lists.per_epoch == 1
    batch = next(lists.batches([0], 0))[0]
    assert sorted(batch.targets[:, 0].tolist()) == [-1.0] * 10 + [1.0] * 10
    features, targets = data.train()
    best = np.argsort(targets[:, 0])[-10:]
    labelled = batch.features[batch.targets[:, 0] > 0].numpy()
    assert {row.tobytes() for row in labelled} == {features[n].tobytes() for n in best}
