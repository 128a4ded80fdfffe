"""Tests of iqa_core/images/degrade.py."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from iqa_core.images.degrade import (
    DISTORTIONS,
    KINDS,
    LEVELS,
    apply_level,
    degrade,
    degraded_views,
)


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


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_every_kind_is_repeatable_and_stronger_at_the_highest_level(kind, image):
    before = image.copy()
    slight, severe = (apply_level(image, kind, level, seed=1) for level in (1, 5))
    assert severe.dtype == np.uint8
    assert slight.shape == severe.shape == image.shape
    assert np.array_equal(apply_level(image, kind, 5, seed=1), severe)
    assert np.array_equal(image, before)
    errors = [np.abs(copy.astype(float) - image).mean() for copy in (slight, severe)]
    assert 0 < errors[0] < errors[1]


def test_held_out_kinds_are_in_no_training():
    held_out = [name for name, kind in DISTORTIONS.items() if kind.use == "held_out"]
    assert held_out == ["jitter", "haze"]
    assert KINDS == ("blur", "noise", "jpeg", "low_resolution", "dark", "low_contrast")


def test_the_table_is_imported_without_scipy():
    code = "import sys, iqa_core.images.degrade; print({'scipy', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
