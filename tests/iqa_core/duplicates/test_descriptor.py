"""Tests of iqa_core/duplicates/descriptor.py: near for copies, far for other pictures."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from iqa_core.columns import DESCRIPTOR_WIDTH
from iqa_core.duplicates.clusters import DEFAULT_THRESHOLD
from iqa_core.duplicates.descriptor import describe_pixels

SIDE = 224


def described(image):
    values = np.frombuffer(describe_pixels(np.asarray(image.resize((SIDE, SIDE)))), np.int8)
    return values / np.linalg.norm(values.astype(np.float64))


def squares(photos):
    return {name: Image.fromarray(photo[:280, :280]) for name, photo in photos.items()}


def encoded(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


CHANGES = {
    "encoded": lambda image: encoded(image, 30),
    "resized": lambda image: image.resize((100, 100)),
    "cropped": lambda image: image.crop((5, 5, 275, 275)),
    "brighter": lambda image: image.point(lambda value: min(255, int(1.2 * value))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_near(photos, change):
    for image in squares(photos).values():
        assert described(image) @ described(CHANGES[change](image)) >= DEFAULT_THRESHOLD


def test_other_pictures_are_far(photos):
    found = [described(image) for image in squares(photos).values()]
    for one, other in itertools.combinations(found, 2):
        assert abs(one @ other) < 0.5


def test_the_coefficients_are_those_of_the_cosine_transform():
    """A single wave: all of its energy is in one coefficient, after the mean is left out."""
    rows = np.arange(64) + 0.5
    wave = 128 + 100 * np.cos(np.pi * rows * 3 / 64)[:, None] * np.cos(np.pi * rows * 5 / 64)
    pixels = np.repeat(np.rint(wave).astype(np.uint8)[:, :, None], 3, axis=2)
    values = np.frombuffer(describe_pixels(pixels), np.int8)
    assert len(values) == DESCRIPTOR_WIDTH
    grid = np.concatenate([[0], values]).reshape(13, 13)
    assert grid[3, 5] == 127
    grid[3, 5] = 0
    assert np.abs(grid).max() <= 1


def test_an_image_without_contrast_has_none():
    assert describe_pixels(np.full((SIDE, SIDE, 3), 90, np.uint8)) is None
    noise = np.random.default_rng(0).integers(88, 92, (SIDE, SIDE, 3), np.uint8)
    assert describe_pixels(noise) is None
    board = np.zeros((64, 64, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255  # nearly all of it in the highest frequency
    assert describe_pixels(board) is None
