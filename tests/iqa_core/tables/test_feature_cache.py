"""Tests of iqa_core/tables/feature_cache.py on a cache of version 0.1; runs read it in other tests."""

from __future__ import annotations

from pathlib import Path

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
