"""Batches of images of any sizes, and images that fail."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from iqa_core.scoring.encode import encode_images


class Encoder:
    """Encodes an image as its mean colour, keeps the shapes of its batches, and fails on purpose.

    A batch that holds a pixel of value 255 raises; a pixel of value 254 makes its image's NaN.
    """

    def __init__(self, most: int | None = None) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.most = most

    def __call__(self, pixels: np.ndarray) -> torch.Tensor:
        self.batches.append(pixels.shape[:3])
        if (pixels == 255).any():
            raise RuntimeError("a bad\n  pixel")
        if self.most is not None and len(pixels) > self.most:
            raise torch.cuda.OutOfMemoryError("out of memory")
        means = torch.from_numpy(pixels.mean(axis=(1, 2), dtype=np.float32))
        means[torch.from_numpy((pixels == 254).any(axis=(1, 2, 3)))] = torch.nan
        return means


def flat(value: int, height: int = 4, width: int = 4) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_mixed_sizes_come_back_in_their_order():
    images = [flat(i, 4 + i % 3, 8 - i % 2) for i in range(12)]
    encode = Encoder()
    features, errors = encode_images(encode, images, 3)
    np.testing.assert_array_equal(features, [[i, i, i] for i in range(12)])
    assert errors == {}
    sizes = [batch[1:] for batch in encode.batches]
    assert len(sizes) == len(set(sizes)) == 6
    assert features.dtype == np.float32


@pytest.mark.parametrize(
    ("budget", "batches"),
    [(160, [10]), (159, [9, 1]), (48, [3, 3, 3, 1]), (16, [1] * 10), (1, [1] * 10)],
)
def test_a_batch_stays_within_the_pixel_budget(budget, batches):
    encode = Encoder()
    features, _ = encode_images(encode, [flat(i) for i in range(10)], 3, pixel_budget=budget)
    assert [batch[0] for batch in encode.batches] == batches
    np.testing.assert_array_equal(features[:, 0], range(10))


def test_a_turn_has_all_batches_and_halves_but_not_what_follows():
    """Else two threads' batches would take turns, and both threads finish at the same time."""
    seen = []

    @contextmanager
    def turn():
        seen.append("begins")
        yield
        seen.append("ends")

    class Waited(torch.Tensor):
        def cpu(self):
            seen.append("awaited")
            return super().cpu()

    inner = Encoder(most=2)

    def encode(pixels):
        seen.append(len(pixels))
        return inner(pixels).as_subclass(Waited)

    encode_images(encode, [flat(i) for i in range(4)], 3, batch_size=3, turn=turn())
    assert seen == ["begins", 3, 1, 2, 1, "ends", "awaited"]


@pytest.mark.parametrize("bad", [[0], [5], [9], [2, 3], [0, 9], list(range(10))])
def test_an_image_that_fails_costs_only_itself(bad):
    images = [flat(255 if i in bad else i) for i in range(10)]
    features, errors = encode_images(Encoder(), images, 3)
    assert errors == dict.fromkeys(bad, "RuntimeError: a bad pixel")
    good = [i for i in range(10) if i not in bad]
    np.testing.assert_array_equal(features[good, 0], good)
    assert np.isnan(features[bad]).all()


def test_one_bad_image_of_many_is_found_by_halving():
    encode = Encoder()
    encode_images(encode, [flat(255 if i == 700 else 0) for i in range(1024)], 3)
    assert len(encode.batches) == 1 + 2 * 10


def test_features_that_are_not_finite_are_an_error():
    features, errors = encode_images(Encoder(), [flat(1), flat(254), flat(3)], 3)
    assert errors == {1: "the image tower returned features that are not finite"}
    assert np.isnan(features[1]).all()
    np.testing.assert_array_equal(features[[0, 2], 0], [1, 3])


def test_a_device_that_runs_out_of_memory_gets_smaller_batches():
    encode = Encoder(most=3)
    features, errors = encode_images(encode, [flat(i) for i in range(8)], 3)
    assert errors == {}
    np.testing.assert_array_equal(features[:, 0], range(8))
    assert [batch[0] for batch in encode.batches] == [8, 4, 2, 2, 4, 2, 2]


def test_no_images():
    features, errors = encode_images(Encoder(), [], 3)
    assert features.shape == (0, 3)
    assert errors == {}
