"""Tests of iqa_core/tables/feature_cache.py on a cache of version 0.1; runs read it in other tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from iqa_core.errors import InputError
from iqa_core.tables.feature_cache import FeatureCache

FEATURES = str(Path(__file__).parents[2] / "data/v0.1/features")


def test_other_weights_are_refused():
    cache = FeatureCache(FEATURES)
    cache.check_weights(cache.fingerprint["weights"])
    with pytest.raises(
        InputError, match="but it now has 000000000000: run `iqa embed` again"
    ) as no:
        cache.check_weights("0" * 64)
    assert f"--features {FEATURES} was made by --model tiny" in no.value.on_command_line()


def test_a_column_that_only_has_the_name_is_refused(tmp_path):
    shutil.copytree(FEATURES, tmp_path / "f")
    for part in (tmp_path / "f").glob("part-*.parquet"):
        table = pq.read_table(part).drop_columns(["embedding"])
        pq.write_table(table.append_column("embedding", [["x"] * len(table)]), part)
    with pytest.raises(
        InputError, match="has a column embedding of type string, which is not of `iqa"
    ):
        FeatureCache(str(tmp_path / "f"))
