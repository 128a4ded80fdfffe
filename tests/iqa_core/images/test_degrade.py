"""Tests of iqa_core/images/degrade.py."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.images.degrade import KINDS, LEVELS, degrade, degraded_views


@pytest.fixture(scope="module")
def image(photos):
    return np.ascontiguousarray(photos["coffee"][:224, :224])


@pytest.mark.parametrize("kind", KINDS)
def test_each_level_is_further_from_the_image(kind, image):
    before = image.copy()
    copies = [degrade(image, kind, level, seed=3) for level in LEVELS]
    assert all(copy.shape == image.shape and copy.dtype == np.uint8 for copy in copies)
    errors = [np.mean((copy.astype(float) - image) ** 2) for copy in copies]
    assert errors[0] > 1
    assert all(np.diff(errors) > 0)
    assert (image == before).all()


def test_views_are_fixed_by_their_key(image):
    views, levels = degraded_views(image, 6, "a.parquet:1")
    again, same = degraded_views(image, 6, "a.parquet:1")
    other, different = degraded_views(image, 6, "a.parquet:2")
    assert levels == same
    assert levels != different
    assert all((one == two).all() for one, two in zip(views, again, strict=True))
    assert not all((one == two).all() for one, two in zip(views, other, strict=True))


def test_unknown_kinds_and_levels(image):
    with pytest.raises(ValueError, match="kind 'rain' and level 1 must be one of blur"):
        degrade(image, "rain", 1)
    with pytest.raises(ValueError, match="level 6"):
        degrade(image, "blur", 6)
