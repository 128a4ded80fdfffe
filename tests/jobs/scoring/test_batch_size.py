"""Tests of jobs/scoring/batch_size.py, on a device of which the time and memory are known."""

from __future__ import annotations

import pytest
import torch

from jobs.scoring.batch_size import fastest_batch


class Device:
    """Needs a time for each call and for each image, in waves of some images; its memory is limited."""

    def __init__(self, call, image, wave=1, most=10**6):
        self.now = 0.0
        self.call, self.image, self.wave, self.most = call, image, wave, most
        self.largest = 0

    def __call__(self):
        return self.now

    def encode(self, pixels):
        assert pixels.shape[1:] == (8, 6, 3)
        if len(pixels) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.largest = max(self.largest, len(pixels))
        self.now += self.call + self.image * self.wave * -(-len(pixels) // self.wave)
        return torch.zeros(len(pixels), 2)


@pytest.mark.parametrize(
    ("device", "batch"),
    [
        (Device(0.0, 1e-4), 32),  # the time is that of the images: nothing is gained
        (
            Device(3.2e-3, 1e-4),
            512,
        ),  # a call takes as long as 32 images: 5.9 % to 512, 3.0 % to 1024
        (Device(0.0, 1e-5, wave=512), 512),  # a device that computes 512 at once
        (Device(1.0, 1e-9), 1024),  # the limit
        (Device(1.0, 1e-9, most=200), 128),
        (Device(1.0, 1e-9, most=8), 32),  # batches are halved where they are used
    ],
)
def test_a_batch_is_doubled_while_that_is_faster(device, batch):
    assert fastest_batch(device.encode, (8, 6), clock=device) == batch
    assert device.largest <= min(1024, device.most, 2 * batch)
