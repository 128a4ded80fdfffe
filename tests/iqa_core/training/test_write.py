"""Tests of iqa_core/training/write.py: the arrays hold the cache's rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from iqa_core.columns import EMBEDDING
from iqa_core.errors import InputError
from iqa_core.prompts.pairs import PromptPair
from iqa_core.scoring.features import encode_prompts
from iqa_core.scoring.margins import image_scores_f64
from iqa_core.scoring.margins import margins as scoring_margins
from iqa_core.tables.feature_cache import features_of
from tests.iqa_core.training.rows import (
    ROWS,
    WIDTH,
    write_cache,
    written,
)


def test_rows_are_those_of_the_cache(data, table, prompts):
    assert (data.unused, data.rows + data.held_out_rows) == (8, 392)
    assert 40 < data.held_out_rows < 120
    features = features_of(table)
    place = {row.astype(np.float16).tobytes(): n for n, row in enumerate(features)}
    scores = image_scores_f64(torch.from_numpy(scoring_margins(features, prompts))).numpy()[:, 0]
    mos = table.column("mos").to_numpy()
    seen = []
    for stored, targets in (data.train(), data.held_out()):
        numbers = [place[row.tobytes()] for row in stored]
        np.testing.assert_allclose(targets[:, 0], scores[numbers], rtol=0, atol=1e-12)
        seen += numbers
    assert sorted(seen) == [n for n in range(ROWS) if n % 50]
    teacher, watched = data.held_out_references()
    np.testing.assert_array_equal(teacher, data.held_out()[1][:, 0])
    np.testing.assert_array_equal(watched[:, 0], mos[numbers])


@pytest.mark.parametrize("value", [np.nan, np.inf, None])
def test_a_row_of_status_ok_without_finite_features_is_refused(value, table, prompts, tmp_path):
    """As where the cache's files were written again by another program."""
    features = features_of(table).astype(np.float16)
    missing = np.isnan(features).all(axis=1)
    if value is None:
        missing[33] = True
    else:
        features[33, 5] = value
    flat = pa.array(features.ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, WIDTH, mask=pa.array(missing))
    place = table.schema.get_field_index(EMBEDDING)
    cache = write_cache(tmp_path / "features", table.set_column(place, EMBEDDING, column))
    with pytest.raises(InputError, match=r"row 33 of m\.parquet has the status ok, but no finite"):
        written(cache, str(tmp_path / "data"), prompts, holdout=0.2)


def test_bases_are_all_rows_the_best_or_given(viewed, towers, tmp_path):
    prompts = encode_prompts(towers, [PromptPair("good", "Good photo.", "Bad photo.")])
    own = written(viewed, str(tmp_path / "own"), prompts, holdout=0.2)
    assert (own.bases, own.held_out_bases, own.within) == (own.rows, own.held_out_rows, True)
    bases = own.train_bases()
    assert bases.features.shape == (own.bases, 4, WIDTH)
    np.testing.assert_array_equal(bases.features[:, 0], own.train().features)
    assert not bases.levels[:, 0].any()
    best = written(viewed, str(tmp_path / "best"), prompts, holdout=0.2, clean="best")
    assert not best.within
    assert best.bases == pytest.approx(0.1 * best.rows, abs=1)
    scores = scoring_margins(best.train().features, prompts)[:, 0]
    chosen = scoring_margins(best.train_bases().features[:, 0], prompts)[:, 0]
    assert chosen.min() >= np.quantile(scores, 0.85)
    given = written(viewed, str(tmp_path / "given"), prompts, holdout=0.2, clean=viewed)
    assert (given.clean, given.bases + given.held_out_bases) == ("given", 150)


def test_clean_features_without_copies_are_refused(viewed, cache, towers, tmp_path):
    prompts = encode_prompts(towers, [PromptPair("good", "Good photo.", "Bad photo.")])
    with pytest.raises(
        InputError, match="has no degraded copies: make it by `iqa embed --views 4`"
    ):
        written(viewed, str(tmp_path / "d"), prompts, clean=cache)
